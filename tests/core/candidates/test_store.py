"""Candidates files: read a group at a time whatever their order, and refused when they are not what they must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core.candidates.stats import summary
from leverplus_core.candidates.store import by_question, iter_groups, read_candidates, read_groups, write_groups
from leverplus_core.errors import DataError
from leverplus_core.records import Candidate

ROW: dict[str, Any] = {
    "question_id": "1", "demonstrations": ["a", "b"], "source": "beam", "raw_text": "cat.", "prediction": "cat",
    "accuracy": 0.6, "correct": True, "logprob": -1.5, "info_score": 0.1, "text_similarity": None,
}  # fmt: skip


def _write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    groups = {
        "q": [Candidate("q", ("é", "b"), "beam", "中", "中", 1.0, True, -0.5), Candidate("q", (), "", "", "", 0, False)]
    }
    write_groups(tmp_path / "c.jsonl", groups)
    assert read_groups(tmp_path / "c.jsonl") == groups


@given(st.lists(st.lists(st.integers(0, 5), max_size=12), min_size=1, max_size=3))
def test_groups_are_read_from_several_files_whatever_the_order_of_their_lines(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    files = [questions or [0] for questions in files]
    paths, rows = [], []
    for f, questions in enumerate(files):
        rows.append([Candidate(f"ä{q}", (f"{f}-{i}",), "", "", "", 0.0, False) for i, q in enumerate(questions)])
        paths.append(_write(folder / f"{f}.jsonl", *({**ROW, **_plain(c)} for c in rows[-1])))
    found = list(iter_groups(paths))
    expected = [by_question(candidates) for candidates in rows]
    order = list(by_question([c for candidates in rows for c in candidates]))
    assert [q for q, _ in found] == order
    assert [group for _, group in found] == [[one.get(q, []) for one in expected] for q in order]


def _plain(c: Candidate) -> dict[str, Any]:
    values = {name: getattr(c, name) for name in ROW}
    return {**values, "demonstrations": list(c.demonstrations)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"accuracy": 1.2}, "accuracy is not in"),
        ({"accuracy": "1"}, "accuracy is not in"),
        ({"accuracy": None}, "accuracy is not in"),
        ({"correct": 1}, "correct is not true or false"),
        ({"demonstrations": "ab"}, "demonstrations is not a list of ids"),
        ({"demonstrations": [1, 2]}, "demonstrations is not a list of ids"),
        ({"question_id": 7}, "question_id is not a text"),
        ({"prediction": None}, "prediction is not a text"),
        ({"score": 1}, "unknown field 'score'"),
    ],
)
def test_a_row_of_another_shape_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = _write(tmp_path / "c.jsonl", ROW, {**ROW, **change})
    for read in (lambda: list(read_candidates(path)), lambda: list(iter_groups([path]))):
        with pytest.raises(DataError, match=rf"c.jsonl:2 is not a candidate: .*{says}"):
            read()


@pytest.mark.parametrize("field", sorted(ROW.keys() - {"logprob", "info_score", "text_similarity"}))
def test_a_field_that_is_missing_is_named(tmp_path: Path, field: str) -> None:
    path = _write(tmp_path / "c.jsonl", {k: v for k, v in ROW.items() if k != field})
    with pytest.raises(DataError, match=rf"c.jsonl:1 is not a candidate: .*{field}"):
        list(read_candidates(path))


def test_empty_cut_and_absent_files(tmp_path: Path) -> None:
    whole = _write(tmp_path / "whole.jsonl", ROW, ROW)
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(whole.read_bytes()[:-9])
    (tmp_path / "empty.jsonl").touch()
    for name, says in (("empty", "holds no candidates"), ("cut", r"cut.jsonl:2 is not JSON"), ("absent", "no file")):
        with pytest.raises(DataError, match=says):
            next(iter_groups([whole, tmp_path / f"{name}.jsonl"]))
    with pytest.raises(DataError, match="cannot be read"):
        next(iter_groups([tmp_path]))


def test_the_summary_by_hand() -> None:
    group = [Candidate("q", (str(i),), "", "", "", float(i < 1), i < 1) for i in range(4)]
    assert summary({"q": group, "r": group[:1], "none": []}) == {
        "questions": 2, "candidates": 5, "candidates_per_question": 2.5, "positive_rate": 0.4
    }  # fmt: skip
    assert summary({})["positive_rate"] == 0
