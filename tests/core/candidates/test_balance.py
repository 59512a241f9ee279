"""The balance stage: what it keeps, the metadata that it stores, and balancers that break their contract."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leverplus_core import Balancer, Candidate, Catalog, DataError, Image, Question
from leverplus_core.candidates.stats import summary
from leverplus_core.candidates.store import CANDIDATES, read_groups
from leverplus_core.pipeline.stages.balance import balanced, nothing_left


def candidate(question: str, name: str, accuracy: float) -> Candidate:
    return Candidate(question, (name,), "beam", "", "", accuracy, accuracy >= 0.5, -1.0, 0.0, accuracy)


def question(name: str, positives: int, negatives: int) -> list[Candidate]:
    marks = [1.0] * positives + [0.0] * negatives
    return [candidate(name, f"d{i}", accuracy) for i, accuracy in enumerate(marks)]


GROUPS = {"a": question("a", 7, 5), "b": question("b", 0, 12), "c": question("c", 2, 10), "d": question("d", 0, 12)}


def top_pn(**settings: object) -> Balancer:
    return Catalog.load(disabled="").build("balancer", "top_pn", settings)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logprob", 0.5),
        ("info_score", 1.5),
        ("text_similarity", -0.1),
        ("accuracy", 1.5),
        ("accuracy", True),
        ("logprob", False),
    ],
)
def test_a_measurement_out_of_its_range_is_named_with_its_line(tmp_path: Path, field: str, value: float) -> None:
    row = {"question_id": "a", "demonstrations": ["x"], "source": "", "raw_text": "", "prediction": "", "accuracy": 1.0}
    lines = [{**row, "correct": True}, {**row, "correct": True, field: value}]
    (tmp_path / CANDIDATES).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError, match=rf"{CANDIDATES}:2 is not a candidate: .*{field}"):
        read_groups(tmp_path / CANDIDATES)
    (tmp_path / CANDIDATES).write_text(f"\n{json.dumps({**lines[1], field: float('nan')})}\n", encoding="utf-8")
    with pytest.raises(DataError, match=rf"{CANDIDATES}:2 is not JSON: NaN"):
        read_groups(tmp_path / CANDIDATES)


def test_the_summary_by_hand() -> None:
    expected = {"questions": 4, "candidates": 48, "candidates_per_question": 12.0, "positive_rate": 9 / 48}
    assert summary(GROUPS) == expected
    assert summary({"a": []}) == {**dict.fromkeys(expected, 0), "candidates_per_question": 0.0, "positive_rate": 0.0}


def test_balancing_gives_the_table_and_what_could_not_be_met() -> None:
    selected, metadata, shortfall = balanced(GROUPS, top_pn(), seed=0)
    assert metadata["before"] == summary(GROUPS) and metadata["after"] == summary(selected)
    assert metadata["after"] == {
        "questions": 2, "candidates": 20, "candidates_per_question": 10.0, "positive_rate": 0.4,
    }  # fmt: skip
    assert metadata["change"] == {
        "questions": -2, "candidates": -28, "candidates_per_question": -2.0, "positive_rate": 0.4 - 9 / 48,
    }  # fmt: skip
    assert list(metadata["shortfall"].items()) == [("no positive, dropped", 2), ("fewer than 6 positives, made up", 1)]
    assert shortfall == {
        "b": "no positive, dropped",
        "c": "fewer than 6 positives, made up",
        "d": "no positive, dropped",
    }


class _Rule(Balancer):
    """Picks by the rule on trial."""

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        return [*group, group[0]] if group[0].question_id == "c" else list(group)


class _Foreign(Balancer):
    """Picks a candidate of another question."""

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        return [candidate("other", "d", 1.0)]


class _Silent(Balancer):
    """Drops a question without a word."""

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        return [] if group[0].question_id == "b" else list(group)


@pytest.mark.parametrize(("part", "where"), [(_Rule(), "c"), (_Foreign(), "a")])
def test_a_balancer_that_breaks_its_contract_is_found_out(part: Balancer, where: str) -> None:
    with pytest.raises(DataError, match=f"selected for question {where} what it was not given, or twice"):
        balanced(GROUPS, part, seed=0)


def test_a_candidate_that_is_there_twice_is_not_the_balancers_fault() -> None:
    twice = {"a": [*GROUPS["a"], GROUPS["a"][0]]}
    keep_all = Catalog.load(disabled="").build("balancer", "keep_all", {})
    assert balanced(twice, keep_all, seed=0)[1]["after"] == summary(twice)


def test_a_question_dropped_without_a_reason_is_counted_as_dropped() -> None:
    assert balanced(GROUPS, _Silent(), seed=0)[1]["shortfall"] == {"dropped": 1}


def test_where_everything_is_dropped_the_reasons_and_the_answers_are_told() -> None:
    selected, metadata, _ = balanced(GROUPS, top_pn(min_pos=8), seed=0)
    assert not any(selected.values())
    questions = {"a": Question("a", "what?", Image("i"), ("red", "dark red", "red"))}
    said = {q: [replace(c, prediction="A bus." if c.correct else "Yes.") for c in group] for q, group in GROUPS.items()}
    assert nothing_left(said, metadata, questions) == (
        "the balancer dropped all 4 questions (fewer than 8 positives, dropped: 2; no positive, dropped: 2); "
        "of 48 answers the model's most frequent are 'Yes.' (39), 'A bus.' (9); true answers are such as 'red'"
    )
