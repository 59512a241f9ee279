"""The nearest demonstrations, in the order of choice that puts the nearest next to the question. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leverplus_core.recipes.settings import Order

Positions = tuple[int, ...]
"""Positions in a pool or bank, in the order of choice."""


def nearest(similarity: NDArray[np.floating], shots: int, order: Order = "append") -> Positions:
    """The `shots` most similar of a pool or bank (K,), in the order that puts the nearest next to the question.

    Ties go to the first.
    """
    rows = np.arange(len(similarity))
    if 0 < shots < len(similarity):  # sorts a few rows of a large bank instead of all
        rows = leaders(similarity, shots)
    ranked = rows[np.argsort(-similarity[rows], kind="stable")[:shots]]
    return tuple(beside_question([int(i) for i in ranked], order))


def leaders(scores: NDArray[np.floating], count: int, slack: float = 0.0) -> NDArray[np.intp]:
    """The rows, ascending, of all scores (M,) that are the `count`-th highest or at most `slack` below it.

    And a few more: the threshold is the `count`-th highest of the maxima of groups, which the scores themselves cannot
    be below, and takes a tenth of the time over a large bank.
    """
    count = max(count, 1)
    size = len(scores) // (8 * count)  # of a group; the top ones then rarely share one
    groups = scores
    if size > 1:
        groups = scores[: len(scores) // size * size].reshape(size, -1).max(axis=0)
    if count >= len(groups):
        return np.arange(len(scores))
    return np.flatnonzero(scores >= np.partition(groups, -count)[-count] - slack)


def summed(similarities: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
    """One similarity as it is; several as the sum of their z-scores over the last axis, so that each counts as much.

    A similarity that is the same for all counts as 0.
    """
    if len(similarities) == 1:
        return similarities[0]
    total = np.zeros(similarities[0].shape)
    for similarity in similarities:
        centered = similarity - similarity.mean(-1, keepdims=True, dtype=np.float64)
        total += centered / np.maximum(centered.std(-1, keepdims=True), 1e-6)
    return total


def beside_question(ranked: list[int], order: Order) -> list[int]:
    """Positions, nearest first, in the order of choice: with `prepend`, the first choice is next to the question."""
    return ranked if order == "prepend" else ranked[::-1]
