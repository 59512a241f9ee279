"""Intervals of published accuracies, of which only the mean and the number of questions are known."""

from __future__ import annotations

from leverplus_core.statistics.accuracy import Interval


def published_interval(accuracy: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of an accuracy of `n` questions of which only the mean is known (Wilson, 1927).

    It is right for answers that are right or wrong and conservative for graded ones: among scores in [0, 1] of a
    given mean, 0 and 1 vary most.
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(accuracy * n, n, alpha=1 - level, method="wilson")
    return Interval(accuracy, min(float(low), accuracy), max(float(high), accuracy))


def unpaired_interval(a: float, n_a: int, b: float, n_b: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a - b for two accuracies of which only means and sizes are known (Newcombe, 1998, method 10).

    It assumes different questions for each, so it is conservative for methods that answered the same questions alike.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep

    low, high = confint_proportions_2indep(
        a * n_a, n_a, b * n_b, n_b, method="newcomb", compare="diff", alpha=1 - level
    )
    return min(float(low), a - b), max(float(high), a - b)
