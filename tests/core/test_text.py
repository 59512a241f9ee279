"""What is shown of a text, and what is written of it in an error line, a CSV cell and JSON."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core.errors import LeverplusError, did_you_mean
from leverplus_core.text import csv_cell, json_text, one_line, shortened, shown, shown_values

ANY = st.text(st.characters(exclude_categories=()), max_size=20)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b]0;owned\x07\x1b[31m", r"\x1b]0;owned\x07\x1b[31m"),
        ("\x9b31m \x7f \x00", r"\x9b31m \x7f \x00"),
        ("user\u202e\u2066// admin\u2069", r"user\u202e\u2066// admin\u2069"),
        ("mi\u200bx\u200ded\ufeff\xad", r"mi\u200bx\u200ded\ufeff\xad"),
        ("half \ud800 of \udcff", r"half \ud800 of \udcff"),
        ("x\U000e0041\uffff", r"x\U000e0041\uffff"),
        ("good\rbad", r"good\rbad"),
        ("one\u2028two", r"one\u2028two"),
    ],
)
def test_what_a_reader_would_not_see_is_a_visible_escape(text: str, seen: str) -> None:
    assert shown(text) == seen


@pytest.mark.parametrize(
    "text", ["two\nlines\tand a tab", "é 模型 שלום", "👩‍👩‍👧 🏳️‍🌈", "می‌خواهم", "[red]x[/red] $x_y$ <b> =1", "\\x1b"]
)
def test_what_a_reader_sees_stays(text: str) -> None:
    assert shown(text) == text


@given(ANY)
def test_shown_text_holds_nothing_that_is_unseen_and_showing_it_again_changes_nothing(text: str) -> None:
    seen = shown(text)
    kinds = {unicodedata.category(c) for c in seen if c not in "\n\t\u200c\u200d"}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    assert shown(seen) == seen
    seen.encode()


def test_nested_values_are_shown_with_their_keys() -> None:
    assert shown_values({"a\x1b": ["\x1b", 1, (None, "b")]}) == {r"a\x1b": [r"\x1b", 1, [None, "b"]]}


def test_an_error_is_one_line_however_long_and_odd_its_quotations() -> None:
    error = LeverplusError(f"no run '{'x' * 10_000}'\n in\x1b[31m the registry.", "Known: " + "a, " * 5000 + "z.")
    assert str(error).startswith("no run 'xxx") and r"' in\x1b[31m the registry. Known: a, a, " in str(error)
    assert str(error).endswith("a, z.") and len(str(error)) < 1800 and "\n" not in str(error)
    assert " ... [9,434 characters] ... " in error.what


def test_a_short_error_keeps_all_that_it_says() -> None:
    hint = did_you_mean("mixd", [f"part_{i}" for i in range(60)])
    assert LeverplusError("no part 'mixd'.", hint).hint == hint
    assert shortened("x" * 200) == "x" * 200
    assert shortened("a" * 150 + "b" * 150) == "a" * 133 + " ... [101 characters] ... " + "b" * 66
    assert one_line(" a\n\n b\t") == "a b"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('=HYPERLINK("https://e.org")', '\'=HYPERLINK("https://e.org")'),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", r"\r=1"),
        ("x\x1b", r"x\x1b"),
        ("-1.25", "-1.25"), ("+3e-4", "+3e-4"), ("64.20", "64.20"), ("-", "-"), ("", ""), ("a=b", "a=b"),
        (-1.25, -1.25), (None, None), (3, 3),
    ],
)  # fmt: skip
def test_a_formula_in_a_csv_cell_is_text_and_a_number_stays_one(value: object, written: object) -> None:
    assert csv_cell(value) == written


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def test_json_has_no_infinity_and_reads_back_as_it_was() -> None:
    value = {"a": [float("inf"), -float("inf"), float("nan"), 0.5], "b": "\x1b\x9b\x7f\u202e\ud800\U000e0041 é 👩‍👧"}
    for ascii in (False, True):
        text = json_text(value, ascii)
        assert json.loads(text, parse_constant=refuse) == {"a": [None, None, None, 0.5], "b": value["b"]}
        assert not set(text) & set("\x1b\x9b\x7f\u202e\ud800\U000e0041") and text.isascii() == ascii
    assert json_text("é\x9b") == '"é\\u009b"'


def test_what_a_library_says_with_a_full_stop_ends_a_message_with_one() -> None:
    for what, says in {
        "it: no.": "it: no.",
        "it: no..": "it: no.",
        "it: no .\n.": "it: no.",
        "and so on...": "and so on...",
    }.items():
        assert str(LeverplusError(what, "Look.")) == f"{says} Look."
