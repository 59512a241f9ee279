"""Intervals and tests for graded accuracies: how far a mean, or a difference on the same questions, can be trusted.

Everything rests on scipy and statsmodels, imported on first use: a table of what is recorded needs neither.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leverplus_core.errors import DataError

Scores = NDArray[np.float64]
RESAMPLES = 9999
"""Random sign flips of the permutation test; all of them are taken where there are no more than this."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean accuracy and its confidence interval, all in [0, 1]."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """mean(a) - mean(b) over `n` questions that both answered, its interval in [-1, 1], and a two-sided p-value."""

    n: int
    delta: float
    low: float
    high: float
    p_value: float


def accuracy_interval(scores: ArrayLike, level: float = 0.95) -> Interval:
    """The t-interval of the mean of graded scores (N,) in [0, 1], cut to [0, 1].

    Where all scores are equal the t-interval has no width, whatever N; Wilson's score interval stands in for it,
    which is conservative for graded scores: among values in [0, 1] of a given mean, 0/1 vary most.
    Raises DataError for no scores, or one that is not in [0, 1].
    """
    from scipy import stats

    values = _accuracies(scores, "scores")
    n, mean = len(values), float(values.mean())
    if np.ptp(values) == 0:
        z = float(stats.norm.ppf((1 + level) / 2))
        mean = float(values[0])
        centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * np.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
        low, high = centre - half, centre + half
    else:
        low, high = stats.t.interval(level, n - 1, loc=mean, scale=stats.sem(values))
    # Rounding must not put the bound on the wrong side of the mean that it belongs to.
    return Interval(mean, min(max(0.0, float(low)), mean), max(min(1.0, float(high)), mean))


def paired_difference(
    a: ArrayLike, b: ArrayLike, clusters: Sequence[Hashable] | None = None, level: float = 0.95, seed: int = 0
) -> PairedDifference:
    """mean(a) - mean(b) for accuracies (N,) of two methods on the same questions, in the same order.

    The interval is the paired t-interval; with `clusters` (N,), say image ids, its error is cluster-robust
    (statsmodels). The p-value is a sign-flip permutation test, by question or by whole cluster; it is exact where
    2^(differing questions) is at most RESAMPLES, and otherwise drawn from `seed`.

    Differences that are all equal have no spread to estimate an error from. All zero gives (0, 0) and p = 1; all
    equal to c != 0 gives c (2 q - 1) .. c, with q the exact (Clopper-Pearson) lower bound of the share of questions
    that go the same way, so that it leaves zero out only where the sign test does (six questions at 95%).
    Raises DataError for no scores, one that is not in [0, 1], or lengths that differ.
    """
    first, second = _accuracies(a, "scores of a"), _accuracies(b, "scores of b")
    if len(first) != len(second):
        raise DataError(f"paired scores differ in length: {len(first)} and {len(second)}.", "Pair them by question.")
    if clusters is not None and len(clusters) != len(first):
        raise DataError(f"{len(clusters)} clusters for {len(first)} paired scores.", "Give one a question.")
    difference = first - second
    n, delta = len(difference), float(difference.mean())
    if not difference.any():
        return PairedDifference(n, 0.0, 0.0, 0.0, 1.0)
    numbers = {c: i for i, c in enumerate(dict.fromkeys(clusters))} if clusters is not None else {}
    groups = np.array([numbers[c] for c in clusters]) if clusters is not None else np.arange(n)
    low, high = _interval(difference, groups, level)
    totals = np.bincount(groups, weights=difference).astype(np.float64)
    return PairedDifference(n, delta, max(-1.0, low), min(1.0, high), _sign_flip_p_value(totals, seed))


def _interval(difference: Scores, groups: NDArray[np.intp], level: float) -> tuple[float, float]:
    from scipy import stats

    n, count, delta = len(difference), int(groups.max()) + 1, float(difference.mean())
    if np.allclose(difference, difference[0], rtol=0, atol=1e-12):
        share = stats.binomtest(count, count).proportion_ci(level, method="exact").low
        ends = sorted((delta * (2 * float(share) - 1), delta))
        return ends[0], ends[1]
    if count == 1:
        return -1.0, 1.0  # One cluster says nothing about the spread between clusters.
    if count < n:
        from statsmodels.regression.linear_model import OLS

        model = OLS(difference, np.ones(n)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
        if model.bse[0] > 1e-9:  # Differences that cancel within every cluster leave no error: take questions.
            low, high = model.conf_int(alpha=1 - level)[0]
            return float(low), float(high)
    low, high = stats.t.interval(level, n - 1, loc=delta, scale=stats.sem(difference))
    return float(low), float(high)


def _sign_flip_p_value(totals: Scores, seed: int) -> float:
    from scipy import stats

    # A total of zero is the same with its sign flipped; without those the exact test is within reach more often.
    differing = totals[np.abs(totals) > 1e-12]
    if len(differing) < 2:
        return 1.0  # Both signs of one difference are as extreme as each other.
    result = stats.permutation_test(
        (differing,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        n_resamples=RESAMPLES,
        batch=1000,
        random_state=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _accuracies(scores: ArrayLike, what: str) -> Scores:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise DataError(f"{what}: expected one score a question, found shape {values.shape}.")
    wrong = ~((values >= 0) & (values <= 1))  # NaN is neither.
    if wrong.any():
        place = int(wrong.argmax())
        raise DataError(f"{what}: number {place} is {values[place]}.", "An accuracy is in [0, 1].")
    return values
