"""The health of candidates, counted by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from leverplus_core.candidates.stats import inspect
from leverplus_core.candidates.store import by_question
from leverplus_core.plugins.contracts import Dataset, Split
from leverplus_core.plugins.manager import Catalog
from leverplus_core.records import Candidate, Demonstration, Image, Question


def _candidate(question: str, ids: str, accuracy: float, source: str = "beam") -> Candidate:
    return Candidate(question, tuple(ids.split()), source, "", "", accuracy, accuracy >= 0.5, -1.0, 0.0, 0.0)


MIXED = [
    _candidate("q1", "a b", 1.0),
    _candidate("q1", "b a", 0.3, "random"),
    _candidate("q1", "a b", 1.0, "retrieval"),
    _candidate("q1", "c", 0.0, "random"),
    _candidate("q1", "b a", 0.3),
]
WRONG = [_candidate("q2", "a", 0.0), _candidate("q2", "b", 0.0)]
RIGHT = [_candidate("q3", "a", 0.6), replace(_candidate("q3", "", 1.0), logprob=None, text_similarity=None)]
LEAKING = [_candidate("q4", "q4 a", 1.0), _candidate("q4", "a a", 0.0), _candidate("q4", "twin far", 0.0)]
GROUPS = [MIXED, WRONG, RIGHT, LEAKING]


def test_counts_by_hand() -> None:
    health = inspect(GROUPS)
    assert health["summary"] == {
        "questions": 4, "candidates": 12, "candidates_per_question": 3.0, "positive_rate": 5 / 12
    }  # fmt: skip
    assert health["questions"] == {"no_positive": 1, "only_positives": 1, "flat_accuracy": 1}
    headroom = health["headroom"]
    means = (2.6 / 5 + 0 + 0.8 + 1 / 3) / 4
    assert headroom["oracle"] == pytest.approx(0.75)
    assert headroom["mean"] == pytest.approx(means) and headroom["headroom"] == pytest.approx(0.75 - means)
    assert headroom["random"] == {"questions": 1, "oracle": 1.0, "mean": 0.15, "headroom": 0.85}
    assert [n for n in health["accuracy"].values()] == [5, 0, 0, 2, 0, 0, 1, 0, 0, 0, 4]
    assert list(health["accuracy"])[:2] == ["0.0", "0.1"]
    assert list(health["sources"]) == ["beam", "random", "retrieval"]
    assert health["sources"]["random"] == {"candidates": 2, "positive_rate": 0.0, "accuracy": 0.15}
    assert health["sources"]["retrieval"] == {"candidates": 1, "positive_rate": 1.0, "accuracy": 1.0}
    assert {n: row["candidates"] for n, row in health["demonstrations"].items()} == {0: 1, 1: 4, 2: 7}
    assert health["missing"] == {"logprob": 1, "info_score": 0, "text_similarity": 1}
    json.dumps(health, allow_nan=False)


def _found(**given: object) -> dict[str, object]:
    return {name: row["candidates"] for name, row in inspect(GROUPS, **given)["findings"].items()}  # type: ignore[arg-type]


def test_findings_by_hand() -> None:
    assert _found() == {
        "same_sequence": 2, "same_demonstrations": 1, "demonstration_twice": 1, "question_itself": 1,
        "outside_pool": None, "not_in_dataset": None, "shares_query_image": None,
    }  # fmt: skip
    pools = {"q1": ["a", "b"], "q2": ["a", "b"], "q4": ["q4", "a", "twin", "far"]}
    findings = inspect(GROUPS, pools=pools)["findings"]
    assert findings["outside_pool"] == {"candidates": 2, "first": "q1: c"}, "c, and the question that has no pool"
    assert findings["same_sequence"]["first"] == "q1: a, b"


class _Three(Dataset):
    """Questions q1 to q4, of which q4 shares its picture with the demonstration `twin`."""

    def questions(self, split: Split) -> list[Question]:
        return [Question(f"q{i}", "?", Image(f"i{i}"), ("a",)) for i in ((1, 2, 3) if split == "train" else (4,))]

    def demonstrations(self) -> list[Demonstration]:
        images = {"a": "a", "b": "b", "c": "c", "twin": "i4"}
        return [Demonstration(d, "?", Image(image), "a") for d, image in images.items()]


def test_leaks_of_a_dataset_by_hand() -> None:
    found = _found(dataset=_Three())
    assert (found["shares_query_image"], found["not_in_dataset"], found["outside_pool"]) == (1, 2, None)


def test_a_reward_that_cannot_tell_candidates_apart(catalog: Catalog) -> None:
    health = inspect(
        by_question([c for g in GROUPS for c in g]).values(), reward=catalog.build("reward", "separated", {})
    )
    assert health["questions"]["flat_reward"] == 1


def test_nothing_at_all() -> None:
    health = inspect([[]])
    assert health["summary"]["questions"] == 0 and health["headroom"]["mean"] is None
