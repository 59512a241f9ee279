"""The whole bank ranked for each question, for `bank_knn` and `bm25`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from leverplus_core import DataError, EvalSet, Ids, SelectionCost, leaders, nearest

CELLS = 2**24
"""Scores of one batch of questions: 128 MB."""


def rank_bank(
    eval_set: EvalSet, shots: Sequence[int], scores: Callable[[slice], NDArray[np.floating]]
) -> dict[int, list[Ids]]:
    """For each number of shots and question, the demonstrations of the bank with the highest scores.

    `scores` gives (B, M) of a slice of the questions with the bank; ties go to the first demonstration. Never the
    question itself nor its image. Raises DataError where the bank holds too few others.
    """
    bank = eval_set.bank
    ids, most = [d.id for d in bank.demonstrations], max(shots)
    chosen: dict[int, list[Ids]] = {n: [] for n in shots}
    batch = max(1, CELLS // max(len(ids), 1))
    for start in range(0, len(eval_set.questions), batch):
        part = slice(start, start + batch)
        for question, row in zip(eval_set.questions[part], scores(part), strict=True):
            hidden = bank.hidden(question)
            if len(ids) - len(hidden) < most:
                raise DataError(
                    f"question {question.id}: the bank has fewer than {most} demonstrations without its image.",
                    "Lower the number of shots.",
                )
            ranked = np.array(row, np.float64)
            ranked[hidden] = -np.inf
            first = leaders(ranked, most)  # few of a large bank; the first of any number of shots are among them
            for n in shots:
                chosen[n].append(tuple(ids[first[i]] for i in nearest(ranked[first], n, eval_set.order)))
    return chosen


def bank_cost(shots: Sequence[int]) -> SelectionCost:
    """One answer per number of shots; the demonstrations need not be of the pool."""
    return SelectionCost({n: 1 for n in shots}, outside=max(shots, default=0))
