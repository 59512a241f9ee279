"""The share of the gap from a floor to a ceiling that a method closes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from leverplus_core.errors import DataError
from leverplus_core.seeding import rng
from leverplus_core.statistics.difference import PairedDifference, paired_difference
from leverplus_core.statistics.sampling import Clusters, Units, by_run

RESAMPLES = 4999


@dataclass(frozen=True, slots=True)
class Share:
    """`share` = (method - floor) / (ceiling - floor) over `n` questions, and its interval; neither is cut to [0, 1].

    `gap` is ceiling - floor. Where its interval contains zero there is no gap to take a share of: `share`, `low` and
    `high` are NaN.
    """

    n: int
    share: float
    low: float
    high: float
    gap: PairedDifference


def share_closed(
    floor: ArrayLike,
    method: ArrayLike,
    ceiling: ArrayLike,
    clusters: Clusters | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Share:
    """The share of the gap from `floor` (say the best baseline) to `ceiling` (oracle) that `method` closes, all (N,)
    accuracies of the same questions.

    A ratio of two means over the same questions: its interval is the percentile bootstrap over questions, or over
    whole `clusters`, each drawn with all three scores (scipy.stats.bootstrap, paired). Near a gap of zero the ratio is
    unstable, so a gap that is indistinguishable from zero at `level` gives NaN.
    Raises DataError as `paired_difference` does.
    """
    from scipy import stats

    bottom, middle, top = (
        by_run(scores, f"scores of the {what}").mean(axis=0)
        for scores, what in ((floor, "floor"), (method, "method"), (ceiling, "ceiling"))
    )
    gap = paired_difference(top, bottom, clusters, level)
    n = len(bottom)
    if len(middle) != n:
        raise DataError(f"paired scores differ in length: {len(middle)} and {n}.", "Pair them by question.")
    if gap.low <= 0 <= gap.high:
        return Share(n, math.nan, math.nan, math.nan, gap)
    units = Units.of(clusters, n)
    closed, whole = units.sums(middle - bottom), units.sums(top - bottom)
    share = float(closed.sum() / whole.sum())
    if len(closed) < 2:
        return Share(n, share, -math.inf, math.inf, gap)
    found = stats.bootstrap(
        (closed, whole),
        # With few questions a draw may hold none on which the ends differ.
        lambda x, y, axis: x.sum(axis=axis) / np.maximum(y.sum(axis=axis), 1e-9),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, 2_000_000 // len(closed)),
        confidence_level=level,
        method="percentile",
        rng=rng(seed, "share closed"),
    )
    return Share(n, share, float(found.confidence_interval.low), float(found.confidence_interval.high), gap)
