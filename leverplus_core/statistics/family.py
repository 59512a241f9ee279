"""Correction for many comparisons that are made at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from leverplus_core.statistics.difference import PairedDifference

Mark = Literal["better", "worse", "no difference seen"]
MARKS: tuple[Mark, ...] = ("better", "worse", "no difference seen")


@dataclass(frozen=True, slots=True)
class Corrected:
    """One difference of a family of `comparisons`: its corrected interval, Holm's p-value and the mark.

    `level` is the confidence level of the interval. The mark says where zero lies: "better" below the interval, "worse"
    above it, "no difference seen" inside it.
    """

    low: float
    high: float
    p_holm: float
    comparisons: int
    level: float

    @property
    def mark(self) -> Mark:
        """What the corrected interval says of the difference."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference seen"


def corrected(family: Sequence[PairedDifference], alpha: float = 0.05) -> list[Corrected]:
    """Intervals and marks of m comparisons that are read together: any false mark in at most `alpha` of families.

    Holm's step-down procedure ("A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979)
    on the p-values of `paired_difference`; it makes no assumption on the dependence of the comparisons, so samples may
    be nested. The interval excludes zero exactly where Holm rejects:

    - at level 1 - alpha / m (Bonferroni), at which all m intervals cover at once with a chance of at least 1 - alpha;
    - where Holm rejects at its step k what Bonferroni would not, at the level of that step, 1 - alpha / (m - k + 1);
    - where the exact permutation test does not reject but the t-interval excludes zero, extended to end at zero.
    """
    m = len(family)
    if not m:
        return []
    p_values = np.array([difference.p_value for difference in family])
    order = np.argsort(p_values, kind="stable")
    step = np.empty(m, dtype=int)
    step[order] = np.arange(m)
    # Equal to statsmodels' `multipletests`, which runs the garbage collector at each call: seconds over a simulation.
    p_holm = np.minimum(1, np.maximum.accumulate(p_values[order] * np.arange(m, 0, -1)))[step]
    found = []
    for difference, p, adjusted, k in zip(family, p_values, p_holm, step, strict=True):
        rejected = adjusted <= alpha
        share = alpha / (m - int(k)) if rejected and p > alpha / m else alpha / m
        low, high = difference.at(1 - share)
        if not rejected:
            low, high = min(low, 0.0), max(high, 0.0)
        found.append(Corrected(low, high, float(adjusted), m, 1 - share))
    return found
