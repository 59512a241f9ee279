"""Intervals of a mean accuracy and of a paired difference, calibrated for graded scores and few questions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leverplus_core.errors import DataError
from leverplus_core.statistics.permutation import sign_flip_p_value

Scores = NDArray[np.float64]
Groups = NDArray[np.intp]
Clusters = Sequence[Hashable] | NDArray[Any]
"""For each question what it is about, say its image's id."""
PRIOR = 0.15
"""Half the smallest step between grades. A difference's spread is estimated as if two more questions, or clusters, had
differed by it: a few questions that happen to agree do not show that there is no spread."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean accuracy and its confidence interval, all in [0, 1]."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """mean(a) - mean(b) over `n` questions that both answered, its interval in [-1, 1], and a two-sided p-value.

    `error` is the standard error and `df` its degrees of freedom; `at` gives the interval at another level. `units`
    is the number of independent ones among the questions: clusters, or `n`. `same` is the difference where all are
    alike, which leaves no spread to estimate an error from; None otherwise.
    """

    n: int
    delta: float
    low: float
    high: float
    p_value: float
    error: float
    df: float
    units: int
    same: float | None = None

    def at(self, level: float) -> tuple[float, float]:
        """(low, high) at a confidence level in (0, 1)."""
        return _ends(self.delta, self.error, self.df, self.units, self.same, level)


def accuracy_interval(scores: ArrayLike, clusters: Clusters | None = None, level: float = 0.95) -> Interval:
    """Wilson's interval of the mean of graded scores in [0, 1], at the effective number of questions.

    Scores are (N,), or (S, N) for S seeded runs. The score interval for a share (Wilson, JASA 22, 1927) is taken at
    n_eff = mean (1 - mean) / V, V the estimated variance of the mean: more than N where grades vary less than 0/1
    would, fewer where questions about one image (`clusters`, (N,)) go together or runs differ; with Student's t (Dean
    and Pagano, "Evaluating confidence interval methods for binomial proportions in clustered surveys", J. Surv. Stat.
    Methodol. 3, 2015). V is estimated as if half a question more had scored 0 and half a one 1, so that scores that
    are all alike keep a width. Raises DataError for no scores, one not in [0, 1], or clusters of another number.
    """
    from scipy import stats

    runs = by_run(scores, "scores")
    values, n = runs.mean(axis=0), runs.shape[1]
    groups = units_of(clusters, n)
    units = int(groups.max()) + 1
    alike = bool(np.ptp(runs) == 0)
    mean = float(values[0] if alike else values.mean())
    if units == 1 or alike:
        t, ratio = float(stats.norm.ppf((1 + level) / 2)), n / units
    else:
        centre = (values.sum() + 0.5) / (n + 1)
        spread = float((_sums(values - centre, groups) ** 2).sum() + (centre**2 + (1 - centre) ** 2) / 2)
        variance, df = _with_runs(spread / (n + 1) / n * units / (units - 1), units, [runs], groups)
        t, ratio = float(stats.t.ppf((1 + level) / 2, df)), n * variance / (centre * (1 - centre))  # n / n_eff
    w = t * t * ratio / n
    middle, half = (mean + w / 2) / (1 + w), np.sqrt(w * mean * (1 - mean) + w * w / 4) / (1 + w)
    # Rounding must not put the bound on the wrong side of the mean that it belongs to.
    return Interval(mean, min(max(0.0, float(middle - half)), mean), max(min(1.0, float(middle + half)), mean))


def paired_difference(
    a: ArrayLike, b: ArrayLike, clusters: Clusters | None = None, level: float = 0.95
) -> PairedDifference:
    """mean(a) - mean(b) for accuracies of two methods on the same questions, in the same order.

    Each side is (N,), or (S, N) for S seeded runs of one method, whose mean a question's score then is. The interval
    is the paired t-interval with the cluster-robust error of the mean over `clusters` (N,), say image ids, and
    clusters - 1 degrees of freedom; see PRIOR. A side of several runs adds the variance between its runs, less what
    the questions alone would make it: the random effects of questions and runs crossed, with Satterthwaite's degrees
    of freedom ("An approximate distribution of estimates of variance components", Biometrics 2, 1946). Two runs a
    side make it wide, and rightly so; one run a side says nothing of other seeds, and nothing is added.

    The p-value is the larger of the exact sign-flip test's, by question or whole cluster, and the interval's own: it
    is below 1 - level only where both leave zero out.

    Differences that are all alike have no spread. c != 0 gives c (2 q - 1) .. c, with q the exact (Clopper-Pearson)
    lower bound of the share of questions that go the same way, which leaves zero out only where the sign test does
    (six questions at 95%); all zero gives -(1 - q) .. 1 - q: questions that differ may be as many as that.
    Raises DataError for no scores, one that is not in [0, 1], or lengths that differ.
    """
    first, second = by_run(a, "scores of a"), by_run(b, "scores of b")
    n = first.shape[1]
    if n != second.shape[1]:
        raise DataError(f"paired scores differ in length: {n} and {second.shape[1]}.", "Pair them by question.")
    groups = units_of(clusters, n)
    units = int(groups.max()) + 1
    difference = first.mean(axis=0) - second.mean(axis=0)
    delta = float(difference.mean())
    within = (float((_sums(difference - delta, groups) ** 2).sum()) + 2 * PRIOR**2) / n**2
    within *= units / max(units - 1, 1)
    variance, df = _with_runs(within, units, [first, second], groups)
    error = float(np.sqrt(variance))
    same = None
    if variance == within and np.allclose(difference, difference[0], rtol=0, atol=1e-12):
        same = 0.0 if abs(delta) < 1e-12 else delta
    low, high = _ends(delta, error, df, units, same, level)
    p = max(sign_flip_p_value(_sums(difference, groups)), _p_value(delta, error, df, units, same))
    return PairedDifference(n, delta, low, high, p, error, df, units, same)


def _ends(delta: float, error: float, df: float, units: int, same: float | None, level: float) -> tuple[float, float]:
    from scipy import stats

    if same is not None:
        share = 2 * ((1 - level) / 2) ** (1 / units) - 1  # of all `units` going one way: Clopper and Pearson's bound
        ends = sorted((same * share, same)) if same else [-(1 - share) / 2, (1 - share) / 2]
        return ends[0], ends[1]
    if units == 1:
        return -1.0, 1.0  # One cluster says nothing about the spread between clusters.
    half = float(stats.t.ppf((1 + level) / 2, df)) * error
    return max(-1.0, delta - half), min(1.0, delta + half)


def _p_value(delta: float, error: float, df: float, units: int, same: float | None) -> float:
    """The p at which the interval of level 1 - p ends at zero."""
    from scipy import stats

    if same is not None:
        return min(1.0, 2 * 0.5**units) if same else 1.0
    return 1.0 if units == 1 else float(2 * stats.t.sf(abs(delta) / error, df))


def _with_runs(within: float, units: int, sides: Sequence[Scores], groups: Groups) -> tuple[float, float]:
    """(variance of the mean with that between the runs of each side, Satterthwaite's degrees of freedom)."""
    variance, known = within, within**2 / max(units - 1, 1)
    for side in sides:
        runs, n = side.shape
        if runs == 1:
            continue
        raw = float(side.mean(axis=1).var(ddof=1)) / runs
        residual = side - side.mean(axis=0) - (side.mean(axis=1) - side.mean())[:, None]
        questions = sum(float((_sums(row, groups) ** 2).sum()) for row in residual) / n**2 / (runs - 1) / runs
        variance += max(0.0, raw - questions)
        known += raw**2 / (runs - 1)
    return variance, float(np.clip(variance**2 / known, 1, max(units - 1, 1))) if known else float(max(units - 1, 1))


def _sums(values: Scores, groups: Groups) -> Scores:
    return np.bincount(groups, weights=values).astype(np.float64)


def units_of(clusters: Clusters | None, n: int) -> Groups:
    """0 .. units - 1 for each question; each its own where there are no clusters."""
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise DataError(f"{len(clusters)} clusters for {n} scores.", "Give one a question.")
    if isinstance(clusters, np.ndarray):
        return np.unique(clusters, return_inverse=True)[1].astype(np.intp)
    numbers = {c: i for i, c in enumerate(dict.fromkeys(clusters))}
    return np.fromiter((numbers[c] for c in clusters), dtype=np.intp, count=n)


def by_run(scores: ArrayLike, what: str) -> Scores:
    """(S, N) of one or several runs."""
    values = np.asarray(scores, dtype=np.float64)
    return _accuracies(values, what, (1, 2)).reshape(-1, values.shape[-1])


def _accuracies(scores: ArrayLike, what: str, dimensions: tuple[int, ...] = (1,)) -> Scores:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim not in dimensions or not values.size:
        raise DataError(f"{what}: expected one score a question, found shape {values.shape}.")
    wrong = ~((values >= 0) & (values <= 1))  # NaN is neither.
    if wrong.any():
        place = int(wrong.ravel().argmax())
        raise DataError(f"{what}: number {place} is {values.ravel()[place]}.", "An accuracy is in [0, 1].")
    return values
