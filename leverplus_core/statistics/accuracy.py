"""The interval of a mean accuracy, calibrated for graded scores and few questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from leverplus_core.statistics.sampling import Clusters, Units, by_run


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean accuracy and its confidence interval, all in [0, 1]."""

    mean: float
    low: float
    high: float


def accuracy_interval(scores: ArrayLike, clusters: Clusters | None = None, level: float = 0.95) -> Interval:
    """Wilson's interval of the mean of graded scores in [0, 1], at the effective number of questions.

    Scores are (N,), or (S, N) for S seeded runs. The score interval for a share (Wilson, JASA 22, 1927) is taken at
    n_eff = mean (1 - mean) / V, V the estimated variance of the mean: more than N where grades vary less than 0/1
    would, fewer where questions about one image (`clusters`, (N,)) correlate or runs differ; with Student's t (Dean
    and Pagano, "Evaluating confidence interval methods for binomial proportions in clustered surveys", J. Surv. Stat.
    Methodol. 3, 2015). V is estimated as if half a further question had scored 0 and another half 1, so that equal
    scores keep a width. Raises DataError for no scores, one not in [0, 1], or clusters of another number.
    """
    from scipy import special

    runs = by_run(scores, "scores")
    values, n = runs.mean(axis=0), runs.shape[1]
    units = Units.of(clusters, n)
    alike = bool(np.ptp(runs) == 0)
    mean = float(values[0] if alike else values.mean())
    if units.count == 1 or alike:
        t, ratio = float(special.ndtri((1 + level) / 2)), n / units.count
    else:
        center = (values.sum() + 0.5) / (n + 1)
        more = (center**2 + (1 - center) ** 2) / 2
        variance, df = units.with_runs((units.squares(values - center) * (n - 1) / n + more) / n / (n + 1), [runs])
        t, ratio = float(special.stdtrit(df, (1 + level) / 2)), n * variance / (center * (1 - center))  # n / n_eff
    w = t * t * ratio / n
    middle, half = (mean + w / 2) / (1 + w), np.sqrt(w * mean * (1 - mean) + w * w / 4) / (1 + w)
    # Rounding must not put a bound on the wrong side of the mean.
    return Interval(mean, min(max(0.0, float(middle - half)), mean), max(min(1.0, float(middle + half)), mean))
