"""The paired difference of two methods on the same questions: its interval at any level, and its p-value."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from leverplus_core.errors import DataError
from leverplus_core.statistics.permutation import sign_flip_p_value
from leverplus_core.statistics.sampling import Clusters, Floats, Units, by_run

PRIOR = 0.14
"""The spread of differences is estimated as if two further questions had differed by this much, about half the smallest
step between grades: a few questions that happen to agree do not show that there is no spread. Where units have m
questions on average its square counts sqrt(m) times. Both were chosen by simulation, see docs/statistics.md."""


@dataclass(frozen=True)
class PairedDifference:
    """delta = mean(a) - mean(b) over `n` questions that both answered, with its interval low .. high in [-1, 1].

    `error` is the standard error, `df` its degrees of freedom, and `center` the middle of its intervals at any level,
    see `at`. `units` is the number of independent units: clusters, or `n`. `same` is the difference
    where all are equal, which leaves no spread to estimate an error from; None otherwise. `totals` (units,) are the
    differences summed by unit.
    """

    n: int
    delta: float
    low: float
    high: float
    center: float
    error: float
    df: float
    units: int
    same: float | None
    totals: Floats = field(repr=False, compare=False)

    def at(self, level: float) -> tuple[float, float]:
        """(low, high) at a confidence level in (0, 1)."""
        return _ends(self.center, self.error, self.df, self.units, self.same, level)

    @cached_property
    def p_value(self) -> float:
        """The larger of the exact sign-flip test's two-sided p-value, by question or whole cluster, and the interval's
        own, at which it would end at zero: below 1 - level only where both exclude zero."""
        from scipy import special

        if self.same is not None:
            return min(1.0, 2 * 0.5**self.units) if self.same else 1.0
        if self.units == 1:
            return 1.0
        return max(sign_flip_p_value(self.totals), float(2 * special.stdtr(self.df, -abs(self.center) / self.error)))


def paired_difference(
    a: ArrayLike, b: ArrayLike, clusters: Clusters | None = None, level: float = 0.95
) -> PairedDifference:
    """mean(a) - mean(b) for accuracies of two methods on the same questions, in the same order.

    Each of them is (N,), or (S, N) for S seeded runs of one method, whose mean is then the score of a question. The
    interval is Johnson's modified t ("Modified t tests and confidence intervals for asymmetrical populations", JASA 73,
    1978): the paired t-interval, shifted by a sixth of the skewness where differences mostly have one sign. Its error
    is robust to `clusters` (N,), such as image ids, and includes the variance between seeded runs (`Units`); see also
    PRIOR. Where both have the same number of runs, these are paired in order (by seed), which is valid for unrelated
    runs too. Two runs of each make it wide, as they should; one run of each says nothing about other seeds, and nothing
    is added.

    Differences that are all equal have no spread. c != 0 gives c (2 q - 1) .. c, with q the exact (Clopper-Pearson)
    lower bound of the share of questions of that sign, which excludes zero only where the sign test does (six
    questions at 95%); all zero gives -(1 - q) .. 1 - q: up to this share of questions may differ. One cluster says
    nothing about the spread between clusters and gives -1 .. 1.
    Raises DataError for no scores, a score outside [0, 1], or different lengths.
    """
    first, second = by_run(a, "scores of a"), by_run(b, "scores of b")
    n = first.shape[1]
    if n != second.shape[1]:
        raise DataError(f"paired scores differ in length: {n} and {second.shape[1]}.", "Pair them by question.")
    units = Units.of(clusters, n)
    difference = first.mean(axis=0) - second.mean(axis=0)
    delta = float(difference.mean())
    residual = difference - delta
    prior = 2 * PRIOR**2 * np.sqrt(n / units.count) * n / max(n - 1, 1)
    within = (units.squares(residual) + prior) / n**2
    # Equal numbers of runs are paired in order: the runs of one seed share their data and their initialization.
    sides = [first - second] if len(first) == len(second) else [first, second]
    variance, df = units.with_runs(within, sides)
    same = None
    if variance == within and np.allclose(residual, 0, rtol=0, atol=1e-12):
        same = 0.0 if abs(delta) < 1e-12 else delta
    center = delta + float((units.sums(residual) ** 3).sum()) / n**3 / (6 * variance)
    error = float(np.sqrt(variance))
    low, high = _ends(center, error, df, units.count, same, level)
    return PairedDifference(n, delta, low, high, center, error, df, units.count, same, units.sums(difference))


def _ends(center: float, error: float, df: float, units: int, same: float | None, level: float) -> tuple[float, float]:
    from scipy import special

    if same is not None:
        share = 2 * ((1 - level) / 2) ** (1 / units) - 1  # of all `units` having one sign: Clopper and Pearson's bound
        ends = sorted((same * share, same)) if same else [-(1 - share) / 2, (1 - share) / 2]
        return ends[0], ends[1]
    if units == 1:
        return -1.0, 1.0
    half = float(special.stdtrit(df, (1 + level) / 2)) * error
    return max(-1.0, center - half), min(1.0, center + half)
