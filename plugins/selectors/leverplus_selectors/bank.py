"""The whole bank ranked for each question, for `bank_knn`, `bm25` and `two_tower`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from leverplus_core import DataError, EvalSet, Ids, SelectionCost, beside_question, leaders

CELLS = 2**22
"""Scores of one batch of questions: 32 MB."""
Rows = NDArray[np.intp]


def rank_bank(
    eval_set: EvalSet, shots: Sequence[int], scores: Callable[[slice], NDArray[np.floating]]
) -> dict[int, list[Ids]]:
    """For each number of shots and question, the demonstrations of the bank with the highest scores.

    `scores` gives (B, M) of a slice of the questions with the bank; ties go to the first demonstration. As `choose`.
    """
    hidden = hidden_rows(eval_set, shots)

    def ranked() -> Iterator[Rows]:
        batch = max(1, CELLS // max(len(eval_set.bank.demonstrations), 1))
        for start in range(0, len(hidden), batch):
            part = slice(start, start + batch)
            for own, row in zip(hidden[part], scores(part), strict=True):
                fair = np.array(row, np.float64)
                fair[own] = -np.inf
                first = leaders(fair, max(shots))  # few of a large bank
                yield first[np.argsort(-fair[first], kind="stable")]

    return choose(eval_set, shots, ranked())


def hidden_rows(eval_set: EvalSet, shots: Sequence[int]) -> list[Rows]:
    """The rows of the bank that each question must not be shown: itself and those of its image.

    Raises DataError where they leave too few.
    """
    most, total = max(shots), len(eval_set.bank.demonstrations)
    hidden = [eval_set.bank.hidden(question) for question in eval_set.questions]
    for question, own in zip(eval_set.questions, hidden, strict=True):
        if total - len(own) < most:
            raise DataError(
                f"question {question.id}: the bank has fewer than {most} demonstrations without its image.",
                "Lower the number of shots.",
            )
    return hidden


def choose(eval_set: EvalSet, shots: Sequence[int], ranked: Iterable[Rows]) -> dict[int, list[Ids]]:
    """For each number of shots and question the first of its `ranked` rows, the first next to the question."""
    demonstrations = eval_set.bank.demonstrations
    chosen: dict[int, list[Ids]] = {n: [] for n in shots}
    for rows in ranked:
        ids = [demonstrations[row].id for row in rows[: max(shots)]]
        for n in shots:
            chosen[n].append(tuple(beside_question(ids[:n], eval_set.order)))
    return chosen


def bank_cost(shots: Sequence[int]) -> SelectionCost:
    """One answer per number of shots; the demonstrations need not be of the pool."""
    return SelectionCost({n: 1 for n in shots}, outside=max(shots, default=0))
