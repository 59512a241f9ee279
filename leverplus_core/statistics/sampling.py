"""The units that are independent (questions, images with several questions, seeded runs) and the variance of a mean."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leverplus_core.errors import DataError

Floats = NDArray[np.float64]
Clusters = Sequence[Hashable] | NDArray[Any]
"""What each question belongs to, such as the id of its image."""


@dataclass(frozen=True, eq=False)
class Units:
    """The independent units among N questions: whole clusters, or each question by itself.

    number (N,) is 0 .. count - 1 for each question, sizes (count,) the questions of each unit.
    """

    number: NDArray[np.intp]
    sizes: Floats

    @classmethod
    def of(cls, clusters: Clusters | None, n: int) -> Units:
        """The units of `n` questions. Raises DataError where there is not one cluster per question."""
        if clusters is None:
            return cls(np.arange(n), np.ones(n))
        if len(clusters) != n:
            raise DataError(f"{len(clusters)} clusters for {n} scores.", "Give one per question.")
        if isinstance(clusters, np.ndarray):
            number = np.unique(clusters, return_inverse=True)[1].astype(np.intp)
        else:
            place = {c: i for i, c in enumerate(dict.fromkeys(clusters))}
            number = np.fromiter((place[c] for c in clusters), dtype=np.intp, count=n)
        return cls(number, np.bincount(number).astype(np.float64))

    @property
    def count(self) -> int:
        """The number of units."""
        return len(self.sizes)

    @property
    def df(self) -> float:
        """Degrees of freedom of a variance between units: count - 1 where all have one size, else Kish's n_eff - 1."""
        return float(self.sizes.sum() ** 2 / (self.sizes**2).sum() - 1)

    def sums(self, values: Floats) -> Floats:
        """Sum of values (N,) within each unit."""
        return np.bincount(self.number, weights=values, minlength=self.count).astype(np.float64)

    def squares(self, residual: Floats) -> float:
        """The sum of squares of the units' residual sums, each divided by 1 - its leverage: CR2 (Bell and McCaffrey,
        "Bias reduction in standard errors for linear regression with multi-stage samples", Survey Methodology 28,
        2002), so that over N^2 it is the variance of the mean, unbiased for independent questions."""
        free = 1 - self.sizes / self.sizes.sum()
        return float((self.sums(residual) ** 2 / np.maximum(free, 1e-9)).sum())

    def with_runs(self, variance: float, sides: Sequence[Floats]) -> tuple[float, float]:
        """(variance, degrees of freedom) of a mean over questions, including the seeded runs of each method.

        `variance` is that of the questions, with scores averaged over runs. Each of `sides`, (S, N) of S > 1 runs, adds
        the variance of its runs' means over S, less the part that the questions alone explain: the random effects of
        questions and runs, crossed. Degrees of freedom are Satterthwaite's ("An approximate distribution of
        estimates of variance components", Biometrics 2, 1946), with the runs' part not reduced, which is
        conservative where runs are few.
        """
        known = variance**2 / self.df if self.df > 0 else 0.0
        total = variance
        for side in sides:
            runs, n = side.shape
            if runs == 1:
                continue
            raw = float(side.mean(axis=1).var(ddof=1)) / runs
            residual = side - side.mean(axis=0) - (side.mean(axis=1) - side.mean())[:, None]
            questions = sum(self.squares(row) for row in residual) / n**2 / (runs - 1) / runs
            total += max(0.0, raw - questions)
            known += raw**2 / (runs - 1)
        # A sum of mean squares has at least the degrees of freedom of its smallest part; and two runs that happen to
        # agree are no evidence that runs do, so with two it has no more.
        least = min([self.df, *(len(side) - 1 for side in sides if len(side) > 1)])
        if any(len(side) == 2 for side in sides):
            return total, least
        return total, min(max(total**2 / known, least), self.df) if known else self.df


def by_run(scores: ArrayLike, what: str) -> Floats:
    """Accuracies (N,) of one run, or (S, N) of several, as (S, N). Raises DataError for another shape or range."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim not in (1, 2) or not values.size:
        raise DataError(f"{what}: expected one score per question, found shape {values.shape}.")
    wrong = ~((values >= 0) & (values <= 1))  # NaN is neither.
    if wrong.any():
        place = int(wrong.ravel().argmax())
        raise DataError(f"{what}: number {place} is {values.ravel()[place]}.", "An accuracy is in [0, 1].")
    return values.reshape(-1, values.shape[-1])
