"""Merging: by hand, and the laws of a union."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core.candidates.merge import merge, merge_files
from leverplus_core.candidates.store import by_question, read_candidates, read_groups, write_groups
from leverplus_core.errors import DataError
from leverplus_core.records import Candidate

A = Candidate("1", ("a", "b"), "beam", "cat.", "cat", 0.6, True, -1.5, 0.1)
B = Candidate("1", ("b", "a"), "random", "dog", "dog", 0.0, False)
C = Candidate("2", ("a",), "beam", "red", "red", 1.0, True, -0.5, 0.2, 1.0)


def test_by_hand() -> None:
    again = replace(A, source="mine:swap", logprob=-1.5 + 9e-7, info_score=None, text_similarity=0.25)
    assert merge([("x", [A, C]), ("y", [B, again])]) == [replace(A, text_similarity=0.25), C, B]
    assert merge([("x", [again]), ("y", [A])]) == [replace(again, info_score=0.1)]
    assert merge([]) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prediction": "dog"}, r"prediction is 'cat' in x.jsonl and 'dog' in y.jsonl"),
        ({"raw_text": "cat"}, r"raw_text is 'cat.' in x.jsonl and 'cat' in y.jsonl"),
        ({"accuracy": 0.6000001}, r"accuracy is 0.6 in x.jsonl and 0.6000001 in y.jsonl"),
        ({"correct": False}, r"correct is True in x.jsonl and False in y.jsonl"),
        ({"logprob": -1.500002}, r"logprob is -1.5 in x.jsonl and -1.500002 in y.jsonl"),
        ({"info_score": -0.1}, r"info_score is 0.1 in x.jsonl and -0.1 in y.jsonl"),
    ],
)
def test_a_conflict_names_question_sequence_files_and_values(change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=f"question 1, demonstrations a, b: {says}"):
        merge([("x.jsonl", [C, A]), ("y.jsonl", [B, replace(A, **change)])])


def test_a_filled_measurement_is_compared_with_a_third() -> None:
    bare = replace(A, logprob=None)
    with pytest.raises(DataError, match=r"logprob is -1.5 in x and -2.0 in z"):
        merge([("x", [bare]), ("y", [A]), ("z", [replace(A, logprob=-2.0)])])


def _measured(question: int, ids: tuple[int, ...], source: str, known: tuple[bool, bool, bool]) -> Candidate:
    """A candidate whose measurements follow from its sequence, as those of one model do; some are not known."""
    right = sum(ids) % 2 == 0
    values = (-float(sum(ids)), 0.01 * len(ids), 0.5)
    logprob, info_score, text_similarity = (v if k else None for v, k in zip(values, known, strict=True))
    return Candidate(
        str(question), tuple(map(str, ids)), source, "t", "t", float(right), right, logprob, info_score, text_similarity
    )


CANDIDATES = st.lists(
    st.builds(
        _measured,
        st.integers(0, 2),
        st.lists(st.integers(0, 3), max_size=3).map(tuple),
        st.sampled_from(["beam", "random"]),
        st.tuples(st.booleans(), st.booleans(), st.booleans()),
    ),
    max_size=12,
)


def _set(candidates: Iterable[Candidate]) -> set[Candidate]:
    return {replace(c, source="") for c in candidates}


@given(CANDIDATES, CANDIDATES, CANDIDATES)
def test_merging_is_associative_idempotent_and_commutative_up_to_order_and_source(
    a: list[Candidate], b: list[Candidate], c: list[Candidate]
) -> None:
    ab = merge([("a", a), ("b", b)])
    assert merge([("ab", ab), ("c", c)]) == merge([("a", a), ("bc", merge([("b", b), ("c", c)]))])
    assert merge([("ab", ab), ("ab again", ab)]) == ab == merge([("ab", ab)])
    assert _set(ab) == _set(merge([("b", b), ("a", a)]))
    keys = [(x.question_id, x.demonstrations) for x in ab]
    assert len(keys) == len(set(keys)) and set(keys) == {(x.question_id, x.demonstrations) for x in a + b}


@given(CANDIDATES.filter(bool), CANDIDATES.filter(bool))
def test_files_are_merged_as_their_candidates_are(
    tmp_path_factory: pytest.TempPathFactory, a: list[Candidate], b: list[Candidate]
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    paths = [folder / "a.jsonl", folder / "b.jsonl"]
    for path, candidates in zip(paths, (a, b), strict=True):
        write_groups(path, by_question(candidates))
    metadata = merge_files(paths, folder / "out.jsonl")
    union = by_question(merge([("a", a), ("b", b)]))
    found = read_groups(folder / "out.jsonl")
    assert list(found) == list(union) and {q: _set(g) for q, g in found.items()} == {
        q: _set(g) for q, g in union.items()
    }
    count = len(list(read_candidates(folder / "out.jsonl")))
    assert metadata["union"]["candidates"] == count and metadata["equal"] == len(a) + len(b) - count
    assert [row["candidates"] for row in metadata["inputs"]] == [len(a), len(b)]


def test_a_conflict_writes_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    write_groups(tmp_path / "a.jsonl", {"1": [A], "2": [C]})
    write_groups(tmp_path / "b.jsonl", {"2": [replace(C, prediction="blue")]})
    with pytest.raises(
        DataError, match=r"question 2, demonstrations a: prediction is 'red' in .*a.jsonl and 'blue' in"
    ):
        merge_files([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "out.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


def test_a_file_can_be_merged_into_itself(tmp_path: Path) -> None:
    write_groups(tmp_path / "a.jsonl", {"1": [A]})
    write_groups(tmp_path / "b.jsonl", {"1": [B], "2": [C]})
    merge_files([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], tmp_path / "a.jsonl")
    assert read_groups(tmp_path / "a.jsonl") == {"1": [A, B], "2": [C]}
