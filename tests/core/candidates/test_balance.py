"""The balance stage, the report's table that it stores, and how that is shown."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from leverplus_core import Balancer, Candidate, Catalog, DataError
from leverplus_core.candidates.stats import balance_metadata
from leverplus_core.candidates.store import BALANCED, CANDIDATES, read_groups, write_groups
from leverplus_core.io import read_json
from leverplus_core.pipeline.stages import balance
from leverplus_core.report.balance import balance_table


def candidate(question: str, name: str, accuracy: float) -> Candidate:
    return Candidate(question, (name,), "beam", "", "", accuracy, accuracy >= 0.5, -1.0, 0.0, accuracy)


def question(name: str, positives: int, negatives: int) -> list[Candidate]:
    marks = [1.0] * positives + [0.0] * negatives
    return [candidate(name, f"d{i}", accuracy) for i, accuracy in enumerate(marks)]


GROUPS = {"a": question("a", 7, 5), "b": question("b", 0, 12), "c": question("c", 2, 10), "d": question("d", 0, 12)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    write_groups(tmp_path / CANDIDATES, GROUPS)
    return tmp_path


def top_pn(**settings: object) -> Balancer:
    return Catalog.load(disabled="").build("balancer", "top_pn", settings)


def drawn(metadata: dict[str, object], width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(balance_table(metadata))
    return out.getvalue()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("logprob", float("nan")),
        ("logprob", 0.5),
        ("info_score", 1.5),
        ("info_score", float("nan")),
        ("text_similarity", -0.1),
        ("accuracy", 1.5),
    ],
)
def test_a_measurement_out_of_its_range_is_named_with_its_line(tmp_path: Path, field: str, value: float) -> None:
    row = {"question_id": "a", "demonstrations": ["x"], "source": "", "raw_text": "", "prediction": "", "accuracy": 1.0}
    lines = [{**row, "correct": True}, {**row, "correct": True, field: value}]
    (tmp_path / CANDIDATES).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(DataError, match=rf"{CANDIDATES}:2 is not a candidate: .*{field}"):
        read_groups(tmp_path / CANDIDATES)


def test_shape_by_hand() -> None:
    expected = {"questions": 4, "candidates": 48, "candidates_per_question": 12.0, "positive_rate": 9 / 48}
    assert summary(GROUPS) == expected
    assert summary({"a": []}) == {**dict.fromkeys(expected, 0), "candidates_per_question": 0.0, "positive_rate": 0.0}


def test_the_balance_stage_stores_the_table_and_what_could_not_be_met(folder: Path) -> None:
    out = folder / "out"
    metadata = balance(out, folder, top_pn(), seed=0)
    assert metadata == read_json(out / "balance.json")
    assert metadata["before"] == summary(GROUPS) and metadata["after"] == summary(read_groups(out / BALANCED))
    assert metadata["after"] == {
        "questions": 2, "candidates": 20, "candidates_per_question": 10.0, "positive_rate": 0.4,
    }  # fmt: skip
    assert metadata["change"] == {
        "questions": -2, "candidates": -28, "candidates_per_question": -2.0, "positive_rate": 0.4 - 9 / 48,
    }  # fmt: skip
    assert list(metadata["unmet"].items()) == [("no positive, dropped", 2), ("fewer than 6 positives, made up", 1)]
    assert read_json(out / "unmet.json") == {
        "b": "no positive, dropped",
        "c": "fewer than 6 positives, made up",
        "d": "no positive, dropped",
    }


def test_the_table_reads_well_at_80_columns(folder: Path) -> None:
    text = drawn(balance(folder / "out", folder, top_pn(), seed=0))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines]
    for row in (
        ["before", "after", "change"],
        ["questions", "4", "2", "-2"],
        ["candidates", "48", "20", "-28"],
        ["candidates per question", "12.00", "10.00", "-2.00"],
        ["positive rate", "18.75%", "40.00%", "+21.25 pp"],
        ["not met", "questions", "of all"],
        ["no positive, dropped", "2", "50.00%"],
        ["fewer than 6 positives, made up", "1", "25.00%"],
    ):
        assert row in rows, text


def test_nothing_unmet_is_not_a_table() -> None:
    assert "could not be met" not in drawn(balance_metadata(GROUPS, GROUPS, {}))


def test_large_numbers_stay_on_their_line() -> None:
    before = {"questions": 9_000, "candidates": 1_234_567, "candidates_per_question": 137.17, "positive_rate": 1.0}
    metadata = {"before": before, "after": before, "change": dict.fromkeys(before, 0), "unmet": {"word " * 30: 9_000}}
    text = drawn(metadata)
    assert "1,234,567" in text and "100.00%" in text and max(map(len, text.splitlines())) <= 80


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
def test_a_balancer_that_breaks_its_contract_is_found_out(folder: Path, part: Balancer, where: str) -> None:
    with pytest.raises(DataError, match=f"picked for question {where} what it was not given, or twice"):
        balance(folder / "out", folder, part, seed=0)
    assert not list((folder / "out").iterdir())


def test_a_file_with_a_candidate_twice_is_not_the_balancers_fault(folder: Path) -> None:
    twice = {"a": [*GROUPS["a"], GROUPS["a"][0]]}
    write_groups(folder / CANDIDATES, twice)
    keep_all = Catalog.load(disabled="").build("balancer", "keep_all", {})
    assert balance(folder / "out", folder, keep_all, seed=0)["after"] == summary(twice)


def test_a_question_dropped_without_a_word_is_put_down(folder: Path) -> None:
    assert balance(folder / "out", folder, _Silent(), seed=0)["unmet"] == {"dropped": 1}


def test_a_balancer_that_drops_everything_says_why_in_one_line_and_writes_nothing(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        balance(folder / "out", folder, top_pn(min_pos=8), seed=0)
    assert str(caught.value) == (
        "the balancer dropped all 4 questions (fewer than 8 positives, dropped: 2; no positive, dropped: 2). "
        "Loosen its settings, score more questions, or use keep_all."
    )
    assert not list((folder / "out").iterdir())
