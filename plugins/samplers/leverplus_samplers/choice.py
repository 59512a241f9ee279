"""What the built-in samplers share: the rows that may be drawn, and the rows nearest to a question.

A batch of questions is multiplied with the bank at once: the product in single precision says which rows can be among
the nearest, and these few are compared in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from leverplus_core import Bank, DataError, Floats, Query, leaders

Rows = NDArray[np.intp]
MARGIN = 1.1
"""The longest a row may be; encoders give rows of length 1."""


def hidden_rows(queries: Sequence[Query], bank: Bank, k: int) -> list[Rows]:
    """The rows that each query must not be shown. Raises DataError when they leave fewer than `k`."""
    total = len(bank.demonstrations)
    if total == 0 and queries:
        raise DataError(
            f"there is no demonstration to draw a pool for question {queries[0].question.id} from.",
            "The dataset's train split is empty.",
        )
    found = [bank.hidden(query.question) for query in queries]
    for query, hidden in zip(queries, found, strict=True):
        if (left := total - len(hidden)) < k:
            raise DataError(
                f"question {query.question.id} needs a pool of k={k}, but only {left} of {total} demonstrations "
                "are allowed (not the question itself nor its image).",
                f"Set the sampler's k to {left} or less." if left else "Add train questions on other images.",
            )
    return found


def drawn(rng: np.random.Generator, total: int, without: Rows, count: int) -> Rows:
    """`count` of the rows 0 .. total - 1 but for those `without` (ascending), uniformly and without repeats."""
    places = rng.choice(total - len(without), size=count, replace=False)
    # The n-th row that is left has as many rows of `without` before it as these leave n or fewer rows before them.
    rows: Rows = places + np.searchsorted(without - np.arange(len(without)), places, side="right")
    return rows


def nearest(bank: Floats, vectors: Floats, hidden: Sequence[Rows], count: int) -> Iterator[Rows]:
    """For each of `vectors` (B, D) the `count` rows of `bank` (M, D) most similar to it, the nearest first.

    The dot of unit rows is the cosine. Never one of its `hidden` rows. Raises DataError for a similarity that is not a
    number. Ties go to the lower row number.
    """
    for vector, own, rough in zip(vectors, hidden, _cosines(bank, vectors), strict=True):
        rough[own] = -np.inf
        # The product may round a row differently by its place in the matrix, and equal demonstrations must tie. So it
        # only leaves out what is too far even if it erred by the most that float32 can: none of the nearest is.
        rows = _fair(leaders(rough, count, 2 * _error(bank, vector)), own)
        yield rows[np.argsort(-_exact(bank[rows], vector), kind="stable")][:count]


def nearest_in_both(
    bank: Bank, blocks: Sequence[tuple[str, Floats]], hidden: Sequence[Rows], count: int
) -> Iterator[Rows]:
    """The `count` rows nearest by several (block, vectors (B, D)) together: by the sum of z-scores over allowed rows.

    As `nearest` otherwise.
    """
    features = [getattr(bank.features, block) for block, _ in blocks]
    products = [_cosines(rows, vectors) for rows, (_, vectors) in zip(features, blocks, strict=True)]
    spreads = [bank.spread(block, vectors) for block, vectors in blocks]
    for i, own in enumerate(hidden):
        count_allowed = len(bank.demonstrations) - len(own)
        total = np.zeros(len(bank.demonstrations))
        parts, slack = [], 0.0
        for rows, (_, vectors), rough, (sums, squares) in zip(features, blocks, products, spreads, strict=True):
            left_out = _exact(rows[own], vectors[i])
            mean = (sums[i] - left_out.sum()) / count_allowed
            variance = (squares[i] - (left_out**2).sum()) / count_allowed - mean**2
            scale = max(float(np.sqrt(max(variance, 0.0))), 1e-6)
            total += (rough[i] - mean) / scale
            slack += 2 * _error(rows, vectors[i]) / scale
            parts.append((rows, vectors[i], mean, scale))
        total[own] = -np.inf
        near = _fair(leaders(total, count, slack), own)
        exact = np.zeros(len(near))
        for rows, vector, mean, scale in parts:
            exact += (_exact(rows[near], vector) - mean) / scale
        yield near[np.argsort(-exact, kind="stable")][:count]


def _fair(rows: Rows, hidden: Rows) -> Rows:
    """`rows` without those `hidden`, which are among them only where nearly all of the bank is."""
    return rows[~np.isin(rows, hidden)]


def _exact(rows: Floats, vector: Floats) -> NDArray[np.float64]:
    """(N,) cosines in float64: equal rows give equal ones, whatever else is in the bank."""
    found: NDArray[np.float64] = (rows.astype(np.float64) * vector.astype(np.float64)).sum(axis=1)
    return found


def _cosines(bank: Floats, vectors: Floats) -> Floats:
    """(B, M) in float32."""
    rough: Floats = vectors @ bank.T
    if not np.isfinite(rough.sum(axis=1)).all():
        row = np.flatnonzero(~np.isfinite(rough).all(axis=0))[0]
        raise DataError(
            f"the similarity of demonstration row {row} to the question is not a number.",
            "The encoder gave a feature that is NaN or infinite.",
        )
    return rough


def _error(bank: Floats, vector: Floats) -> float:
    """The most by which float32 errs in one cosine."""
    return float(bank.shape[1] * np.finfo(np.float32).eps * np.linalg.norm(vector) * MARGIN)
