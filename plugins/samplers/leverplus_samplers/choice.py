"""What the built-in samplers share: the rows that may be drawn, and the rows nearest to a question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from leverplus_core import Bank, DataError, Floats, Query, exact_cosines, nearest_rows

Rows = NDArray[np.intp]


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


def nearest_in_both(
    bank: Bank, blocks: Sequence[tuple[str, Floats]], hidden: Sequence[Rows], count: int
) -> Iterator[Rows]:
    """The `count` rows nearest by several (block, vectors (B, D)): by the sum of z-scores over allowed rows."""
    allowed = np.array([len(bank.demonstrations) - len(own) for own in hidden])
    scales = []
    for block, vectors in blocks:
        rows = getattr(bank.features, block)
        left_out = [exact_cosines(rows[own], vector) for own, vector in zip(hidden, vectors, strict=True)]
        sums, squares = bank.spread(block, vectors)
        mean = (sums - [found.sum() for found in left_out]) / allowed
        variance = (squares - [(found**2).sum() for found in left_out]) / allowed - mean**2
        scales.append((mean, np.maximum(np.sqrt(np.maximum(variance, 0)), 1e-6)))
    return nearest_rows([(v, getattr(bank.features, block)) for block, v in blocks], hidden, count, scales)
