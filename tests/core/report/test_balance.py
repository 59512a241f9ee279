"""The balancing table: candidates before and after, and the settings that were not met."""

from __future__ import annotations

import io
import re

from rich.console import Console

from leverplus_core.candidates.stats import balance_metadata
from leverplus_core.records import Candidate
from leverplus_core.report.balance import balance_table


def _group(name: str, positives: int, negatives: int) -> list[Candidate]:
    accuracies = [1.0] * positives + [0.0] * negatives
    return [Candidate(name, (f"d{i}",), "", "", "", a, a >= 0.5) for i, a in enumerate(accuracies)]


BEFORE = {"a": _group("a", 7, 5), "b": _group("b", 0, 12), "c": _group("c", 2, 10), "d": _group("d", 0, 12)}
AFTER = {"a": _group("a", 6, 4), "c": _group("c", 2, 8)}
SHORTFALL = {"b": "no positive, dropped", "c": "fewer than 6 positives, made up", "d": "no positive, dropped"}


def drawn(metadata: dict[str, object], width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(balance_table(metadata))
    return out.getvalue()


def test_the_table_reads_well_at_80_columns() -> None:
    text = drawn(balance_metadata(BEFORE, AFTER, SHORTFALL))
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


def test_without_a_shortfall_there_is_no_second_table() -> None:
    assert "not met" not in drawn(balance_metadata(BEFORE, BEFORE, {}))


def test_large_numbers_stay_on_their_line() -> None:
    before = {"questions": 9_000, "candidates": 1_234_567, "candidates_per_question": 137.17, "positive_rate": 1.0}
    change = dict.fromkeys(before, 0)
    text = drawn({"before": before, "after": before, "change": change, "shortfall": {"word " * 30: 9_000}})
    assert "1,234,567" in text and "100.00%" in text and max(map(len, text.splitlines())) <= 80
