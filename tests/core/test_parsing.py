from __future__ import annotations

import json
import math
import time
from pathlib import Path

import pytest

from leverplus_core import DataError
from leverplus_core.candidates.store import iter_groups
from leverplus_core.io import iter_jsonl, read_json
from leverplus_core.parsing import DEPTH, DIGITS, NODES, Unreadable, decode_json, parse_json, parse_yaml

DEEP = "[" * DEPTH + "]" * DEPTH
TRAILING_COMMA = (
    "Expecting property name enclosed in double quotes at line 2, column 4"
    "|Illegal trailing comma before end of object at line 2, column 3"  # as Python 3.13 has it
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('\n {"a": [1, -2.5, null, true, "\\u00e9"]} ', {"a": [1, -2.5, None, True, "é"]}),
        (b"\xef\xbb\xbf[1]", [1]),
        ("9" * DIGITS, 10**DIGITS - 1),
        ('"\\ud83e\\udd8a"', "\U0001f98a"),
        (json.dumps("1e999 \\ud800 " + "9" * 99), "1e999 \\ud800 " + "9" * 99),
        ("0." + "3" * 60, 0.3333333333333333),
        ("1e308", 1e308),
        ("1E-999", 0.0),
        (DEEP, json.loads(DEEP)),
    ],
)
def test_json_is_read_as_it_stands(text: str | bytes, value: object) -> None:
    assert parse_json(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value at column 1"),
        ('{"a":\n 1,}', TRAILING_COMMA),
        ("[1] 2", "text follows the value at column 5"),
        (b"[1, \xff]", "it is not UTF-8 text: byte 4"),
        (b'"\xed\xa0\x80"', "it is not UTF-8 text: byte 1"),
        ("[NaN]", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ("-1E+999", r"the number -1E\+999 is too large"),
        ("1" * (DIGITS + 1), "an integer has 41 digits"),
        ("9" * 5000, "an integer has more than 40 digits"),
        ('{"a\\udfff": 1}', r"half of a surrogate pair \(\\udfff\)"),
        ('[{"a": 1, "b": 2, "a": 1}]', "the key 'a' stands twice"),
        (f"[{DEEP}]", "it is nested more than 64 deep"),
        ("[" * 100_000, "it is nested too deeply"),
    ],
)
def test_json_that_cannot_be_meant_is_refused_with_the_reason(text: str | bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        parse_json(text)


def test_a_lenient_reader_takes_what_is_no_number_as_null_and_refuses_the_rest() -> None:
    assert parse_json('{"a": NaN, "b": [Infinity, -Infinity, 1]}', lenient=True) == {"a": None, "b": [None, None, 1]}
    assert parse_json(f"[NaN, {'9' * DIGITS}]", lenient=True) == [None, 10**DIGITS - 1]  # through the exact reader
    for text in ("[nan]", "1e999", '{"a": NaN, "a": 1}', f"[{DEEP}]"):
        with pytest.raises(Unreadable):
            parse_json(text, lenient=True)


def test_a_value_in_the_middle_of_a_text_ends_where_it_ends() -> None:
    assert decode_json('{"a": [1], "b": 2}', 6) == ([1], 9)


def test_json_lines_may_begin_with_a_byte_order_mark_and_have_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n \t\r\n{"a": 2}\r\n')
    assert list(iter_jsonl(tmp_path / "x.jsonl")) == [(1, {"a": 1}), (4, {"a": 2})]


def test_candidates_are_read_in_groups_around_blank_lines(tmp_path: Path) -> None:
    row = {"question_id": "q", "demonstrations": [], "source": "s", "raw_text": "", "prediction": "", "accuracy": 1}
    lines = [json.dumps({**row, "correct": True, "demonstrations": [d]}) for d in "ab"]
    (tmp_path / "x.jsonl").write_text(f"\ufeff{lines[0]}\n\n{lines[1]}\n")
    [(question, [group])] = iter_groups([tmp_path / "x.jsonl"])
    assert question == "q" and [c.demonstrations for c in group] == [("a",), ("b",)]


@pytest.mark.parametrize("line", ["NaN", '{"a": 1e999}', '{"a": "\\ud800"}', '{"a": ' + "9" * 5000 + "}", "[" * 9999])
def test_a_line_that_cannot_be_meant_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(f'{{"a": 1}}\n{line}\n')
    (tmp_path / "x.json").write_text(line)
    with pytest.raises(DataError, match=r"x\.jsonl:2 is not JSON"):
        list(iter_jsonl(tmp_path / "x.jsonl"))
    with pytest.raises(DataError, match=r"x\.json cannot be read"):
        read_json(tmp_path / "x.json")


def test_yaml_is_read_with_the_line_of_every_key() -> None:
    text = "\ufeffa: 1\nb:\n  c: [x, 2.5]\n  d: {e: ~}\nf:\n- yes\n- 'true'\n- true\n"
    assert parse_yaml(text.encode()) == (
        {"a": 1, "b": {"c": ["x", 2.5], "d": {"e": None}}, "f": ["yes", "true", True]},
        {"a": 1, "b": 2, "b.c": 3, "b.c.0": 3, "b.c.1": 3, "b.d": 4, "b.d.e": 4, "f": 5, "f.0": 6, "f.1": 7, "f.2": 8},
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("0x1f", 31),
        ("0o17", 15),
        ("1_000", 1000),
        ("007", 7),
        ("1e-3", 0.001),
        ("-.inf", -math.inf),
        ("2024-02-30", "2024-02-30"),
        ("1.30: x", {"1.30": "x"}),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ('"\\ud83e\\udd8a"', "\U0001f98a"),
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ("[&a [1], *a]", [[1], [1]]),
    ],
)
def test_yaml_means_what_the_core_schema_says(text: str, value: object) -> None:
    assert parse_yaml(text)[0] == value


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("a: 1\na: 2", "the key 'a' stands twice", 2),
        ("a: 1\nb: &b [1, *b]", "the anchor 'b' holds itself", 2),
        ("a: *b", "there is no anchor 'b'", 1),
        ("a: !!set {b, c}", "a value with the tag 'set'", 1),
        ("!!python/object/apply:os.system [ls]", "a value with the tag 'python/object/apply:os.system'", 1),
        ("{[1]: 2}", "a key must be a text", 1),
        ("a: 1\n---\nb: 2", "it holds more than one document", 2),
        ("a: " + "9" * 5000, "an integer has 5,000 digits", 1),
        ('x: 1\ny: "\\ud800"', "half of a surrogate pair", 2),
        ("a: [1\nb: 2", "expected", 2),
        ("a\x00", "special characters are not allowed", None),
        ("[" * 100_000, "it is nested more than 64 deep", 1),
        ("- " * 100_000, "it is nested more than 64 deep", 1),
        ("x" * 300_000, "it has 300,000 characters", None),
        ("[" + "x," * (NODES + 1) + "]", "it has more than 20,000 values", 1),
        (
            "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}' if i else 'x'] * 10)}]\n" for i in range(20)),
            "it has more than 20,000 values, those of aliases counted",
            5,
        ),
    ],
)
def test_yaml_that_cannot_be_meant_is_refused_soon_with_its_line(text: str, reason: str, line: int | None) -> None:
    began = time.process_time()
    with pytest.raises(Unreadable, match=reason) as refused:
        parse_yaml(text)
    assert refused.value.line == line
    assert time.process_time() - began < 5
