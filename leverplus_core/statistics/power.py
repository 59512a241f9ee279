"""The differences that an evaluation could have detected, and how many questions it takes to detect smaller ones."""

from __future__ import annotations

import math

from leverplus_core.errors import DataError
from leverplus_core.statistics.difference import PairedDifference

POWER = 0.8
"""The usual chance of detecting a difference that exists."""


def detectable_difference(
    difference: PairedDifference, alpha: float = 0.05, comparisons: int = 1, power: float = POWER
) -> float:
    """The smallest true difference that an evaluation like this one marks with chance `power`, in accuracy (0, 1].

    From the standard error that was found, so with its pairing, clusters and seeds, in a two-sided t-test at
    alpha / comparisons: (t_(1 - alpha / 2m) + t_power) error, with t of the error's degrees of freedom (Cohen,
    "Statistical Power Analysis for the Behavioral Sciences", 1988, in Student's approximation of the noncentral t).
    Holm's later steps need less, so this is conservative. 1 where no difference could have been seen.
    """
    from scipy import special

    if difference.units < 2:
        return 1.0
    quantiles = special.stdtrit(difference.df, [1 - alpha / comparisons / 2, power])
    seen = float(quantiles.sum()) * difference.error
    if difference.same is not None:
        # All equal: the error is a guess, and the interval, which counts questions, is the wider of the two.
        low, high = difference.at(1 - alpha / comparisons)
        seen = max(seen, (high - low) / 2)
    return min(1.0, seen)


def questions_needed(
    difference: PairedDifference, effect: float, alpha: float = 0.05, comparisons: int = 1, power: float = POWER
) -> int:
    """How many questions it takes to mark a true difference of `effect` (0, 1] with chance `power`.

    The spread of the paired differences, clusters included, is assumed to stay as it was estimated (statsmodels
    `TTestPower`); the number of seeds stays, and their spread is treated as if more questions reduced it too.
    Raises DataError for an effect, a level or a power out of range.
    """
    from statsmodels.stats.power import TTestPower

    for name, value in (("effect", abs(effect)), ("alpha", alpha), ("power", power)):
        if not 0 < value < 1 and not (name == "effect" and value == 1):
            raise DataError(f"{name} is {value}.", "It is between 0 and 1; 0.01 is one point, or one in a hundred.")
    if comparisons < 1:
        raise DataError(f"{comparisons} comparisons.", "One at least.")
    spread = difference.error * math.sqrt(difference.n)
    found = TTestPower().solve_power(abs(effect) / spread, alpha=alpha / comparisons, power=power)
    return max(2, math.ceil(float(found)))
