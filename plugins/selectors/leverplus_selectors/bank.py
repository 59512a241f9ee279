"""The whole bank ranked for each question, for `bank_knn` and `bm25`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from leverplus_core import DataError, EvalSet, Ids, SelectionCost, nearest

CELLS = 2**24
"""Scores of one batch of questions: 128 MB."""


def rank_bank(
    eval_set: EvalSet, shots: Sequence[int], scores: Callable[[slice], NDArray[np.floating]]
) -> dict[int, list[Ids]]:
    """For each number of shots and question, the demonstrations of the bank with the highest scores.

    `scores` gives (B, M) of a slice of the questions with the bank; ties go to the first demonstration. Never the
    question itself nor its image. Raises DataError where the bank holds too few others.
    """
    ids = [d.id for d in eval_set.bank.demonstrations]
    own: dict[str, list[int]] = defaultdict(list)
    for row, demonstration in enumerate(eval_set.bank.demonstrations):
        own[f"image {demonstration.image.id}"].append(row)
        own[f"question {demonstration.id}"].append(row)
    chosen: dict[int, list[Ids]] = {n: [] for n in shots}
    batch = max(1, CELLS // max(len(ids), 1))
    for start in range(0, len(eval_set.questions), batch):
        part = slice(start, start + batch)
        for question, row in zip(eval_set.questions[part], scores(part), strict=True):
            hidden = own[f"image {question.image.id}"] + own[f"question {question.id}"]
            if len(ids) - len(set(hidden)) < max(shots):
                raise DataError(
                    f"question {question.id}: the bank has fewer than {max(shots)} demonstrations without its image.",
                    "Lower the number of shots.",
                )
            ranked = np.array(row, np.float64)
            ranked[hidden] = -np.inf
            for n in shots:
                chosen[n].append(tuple(ids[i] for i in nearest(ranked, n, eval_set.order)))
    return chosen


def bank_cost(shots: Sequence[int]) -> SelectionCost:
    """One answer per number of shots; the demonstrations need not be of the pool."""
    return SelectionCost({n: 1 for n in shots}, outside=max(shots, default=0))
