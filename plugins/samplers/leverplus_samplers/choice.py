"""What the built-in samplers share: the rows that may be drawn, and the rows nearest to a question."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leverplus_core import Bank, DataError, Query, allowed
from leverplus_core.parts import Floats

Rows = NDArray[np.intp]


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


def nearest(rows: Rows, features: Floats, query: Floats) -> Rows:
    """`rows` from the most to the least similar to `query` (D,); rows are unit vectors, so the dot is the cosine.

    Raises DataError for a similarity that is not a number. Ties go to the lower row number.
    """
    # Row by row, not as one product: BLAS may round a row differently by its place in the matrix, and equal
    # demonstrations must tie.
    similarity = (features[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1)  # (N,)
    bad = np.flatnonzero(~np.isfinite(similarity))
    if len(bad):
        raise DataError(
            f"the similarity of demonstration row {rows[bad[0]]} to the question is not a number.",
            "The encoder gave a feature that is NaN or infinite.",
        )
    return rows[np.argsort(-similarity, kind="stable")]
