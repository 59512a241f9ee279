"""The nearest demonstrations, in the order of choice that puts the nearest next to the question. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from leverplus_core.errors import DataError
from leverplus_core.plugins.contracts import Floats
from leverplus_core.recipes.settings import Order

T = TypeVar("T")
Positions = tuple[int, ...]
"""Positions in a pool or bank, in the order of choice."""
Rows = NDArray[np.intp]
Scale = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(B,) mean and (B,) deviation of a question's cosines with a bank."""

CELLS = 2**22
"""Cosines of one batch of questions: 16 MB, which an allocator keeps; larger blocks are cleared page by page."""
MARGIN = 1.1
"""The longest a row may be; encoders give rows of length 1."""


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


def nearest_rows(
    blocks: Sequence[tuple[Floats, Floats]],
    hidden: Sequence[Rows],
    count: int,
    scales: Sequence[Scale] | None = None,
    digits: int | None = None,
) -> Iterator[Rows]:
    """For each of B questions the `count` rows of a bank most similar to it, the nearest first; none that is `hidden`.

    A block is the questions' rows (B, D) and the bank's (M, D), both of length 1. Several blocks count by the sum of
    their z-scores, of which `scales` has the mean and deviation. `digits` rounds each cosine. Ties go to the lower row
    number, and nothing depends on the batch. Raises DataError for a similarity that is not a number.
    """
    asked = len(hidden)
    scales = scales or [(np.zeros(asked), np.ones(asked))] * len(blocks)
    size = max(1, CELLS // max(len(blocks[0][1]), 1))
    for start in range(0, asked, size):
        part = slice(start, start + size)
        products = [_cosines(vectors[part], bank) for vectors, bank in blocks]
        for i, own in enumerate(hidden[part]):
            # The product may round a row differently by its place in the matrix, and equal demonstrations must tie. So
            # it only leaves out what is too far even if it erred by the most that float32 can, and these few rows are
            # compared in float64, each for itself.
            slack = 0.0
            weighed = [(v[start + i], bank, mean[start + i], deviation[start + i])
                       for (v, bank), (mean, deviation) in zip(blocks, scales, strict=True)]  # fmt: skip
            if len(blocks) == 1:
                rough = products[0][i]
            else:
                rough = sum((p[i] - m) / d for p, (_, _, m, d) in zip(products, weighed, strict=True))
            for vector, bank, _, deviation in weighed:
                error = bank.shape[1] * np.finfo(np.float32).eps * np.linalg.norm(vector) * MARGIN
                slack += 2 * float(error + (0 if digits is None else 10.0**-digits)) / float(deviation)
            rough[own] = -np.inf
            rows = leaders(rough, count, slack)
            rows = rows[~np.isin(rows, own)]  # they are there only where nearly all of the bank is hidden
            exact = np.zeros(len(rows))
            for vector, bank, mean, deviation in weighed:
                cosines = exact_cosines(bank[rows], vector)
                exact += ((cosines if digits is None else cosines.round(digits)) - mean) / deviation
            # A mean may differ in its last bits by the number of threads; rows with swapped cosines tie all the same.
            exact = exact if len(blocks) == 1 else exact.round(9)
            yield rows[np.argsort(-exact, kind="stable")][:count]


def exact_cosines(rows: Floats, vector: Floats) -> NDArray[np.float64]:
    """(N,) dots of rows (N, D) with a vector (D,) in float64: equal rows give equal ones, whatever is beside them."""
    found: NDArray[np.float64] = (rows.astype(np.float64) * vector.astype(np.float64)).sum(axis=1)
    return found


def _cosines(questions: Floats, bank: Floats) -> Floats:
    """(B, M) in float32."""
    rough: Floats = questions @ bank.T
    if not np.isfinite(rough.sum(axis=1)).all():
        row = np.flatnonzero(~np.isfinite(rough).all(axis=0))[0]
        raise DataError(
            f"the similarity of demonstration row {row} to the question is not a number.",
            "The encoder gave a feature that is NaN or infinite.",
        )
    return rough


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


def beside_question(ranked: list[T], order: Order) -> list[T]:
    """What is ranked in the order of choice: with `prepend`, the first choice is next to the question."""
    return ranked if order == "prepend" else ranked[::-1]
