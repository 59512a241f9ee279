"""What the built-in samplers share: the rows that may be drawn, and the rows nearest to a question."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leverplus_core import Bank, DataError, Floats, Query, allowed

Rows = NDArray[np.intp]
MARGIN = 1.1
"""The longest a row may be; encoders give rows of length 1."""


def rows_for(query: Query, bank: Bank, k: int) -> Rows:
    """Row numbers that `query` may be shown, at least `k` of them. Raises DataError when there are fewer."""
    total = len(bank.demonstrations)
    if total == 0:
        raise DataError(
            f"there is no demonstration to draw a pool for question {query.question.id} from.",
            "The dataset's train split is empty.",
        )
    rows = allowed(query, bank)
    if len(rows) < k:
        raise DataError(
            f"question {query.question.id} needs a pool of k={k}, but only {len(rows)} of {total} demonstrations "
            "are allowed (not the question itself nor its image).",
            f"Set the sampler's k to {len(rows)} or less." if len(rows) else "Add train questions on other images.",
        )
    return rows


def nearest_in_both(rows: Rows, pairs: Sequence[tuple[Floats, Floats]], count: int) -> Rows:
    """The `count` of `rows` nearest by several (features, query) together: by the sum of z-scores over `rows`.

    Raises DataError for a similarity that is not a number. Ties go to the lower row number.
    """
    rough = [_cosines(rows, features, query) for features, query in pairs]
    scales = [(r.mean(dtype=np.float64), max(float(r.std(dtype=np.float64)), 1e-6)) for r in rough]
    total = np.sum([(r - mean) / scale for r, (mean, scale) in zip(rough, scales, strict=True)], axis=0)
    if count < len(rows):
        error = sum(_error(f, query) / scale for (f, query), (_, scale) in zip(pairs, scales, strict=True))
        rows = rows[total >= np.partition(total, -count)[-count] - 2 * error]
    exact = np.zeros(len(rows))
    for (features, query), (mean, scale) in zip(pairs, scales, strict=True):
        exact += ((features[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1) - mean) / scale
    return rows[np.argsort(-exact, kind="stable")][:count]


def nearest(rows: Rows, features: Floats, query: Floats, count: int) -> Rows:
    """The `count` of `rows` most similar to `query` (D,), the nearest first; the dot of unit rows is the cosine.

    Raises DataError for a similarity that is not a number. Ties go to the lower row number.
    """
    rough = _cosines(rows, features, query)
    if count < len(rows):
        # The product may round a row differently by its place in the matrix, and equal demonstrations must tie. So it
        # only leaves out what is too far even if it erred by the most that float32 can: none of the nearest is.
        rows = rows[rough >= np.partition(rough, -count)[-count] - 2 * _error(features, query)]
    similarity = (features[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    return rows[np.argsort(-similarity, kind="stable")][:count]


def _cosines(rows: Rows, features: Floats, query: Floats) -> Floats:
    """(N,) in float32."""
    rough: Floats = (features @ query)[rows]
    bad = np.flatnonzero(~np.isfinite(rough))
    if len(bad):
        raise DataError(
            f"the similarity of demonstration row {rows[bad[0]]} to the question is not a number.",
            "The encoder gave a feature that is NaN or infinite.",
        )
    return rough


def _error(features: Floats, query: Floats) -> float:
    """The most by which float32 errs in one cosine."""
    return float(features.shape[1] * np.finfo(np.float32).eps * np.linalg.norm(query) * MARGIN)
