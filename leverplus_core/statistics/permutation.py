"""The sign-flip permutation test of paired differences, without sampling.

If two methods were interchangeable, each question's difference could as well have had the other sign. Graded
differences are multiples of one step, so that the distribution of their sum under random signs has a product of
cosines as its Fourier transform (Pagano and Tritchler, "On obtaining permutation distributions in polynomial time",
JASA 78, 1983): one transform gives the exact p-value, and there is no seed. `scipy.stats.permutation_test` enumerates
at most some twenty differences and samples beyond: its p-values have a floor of 1 / resamples, which a correction for
many comparisons lifts above 5%, and 9,999 resamples of 800 questions take 300 times as long.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Steps = NDArray[np.int64]
PARTS = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 120, 300, 1000)
"""Steps per unit that are tried: VQA grades are tenths, and a mean over S seeds divides these by S."""
LONGEST = 1 << 15
"""Sum of all differences, in steps, up to which the transform is used; it takes milliseconds."""
NEARLY = 2000
"""Up to this many differences without a common step, such as means over eleven seeds, are rounded to LONGEST steps."""


def sign_flip_p_value(totals: ArrayLike) -> float:
    """The two-sided p-value of the sum of `totals`, (N,) differences by question or by cluster, under random signs.

    Exact where all are multiples of one of 1 / PARTS and their sizes sum to at most LONGEST steps: some six thousand
    differing questions. Beyond that the normal limit of the sum is used.
    """
    values = np.asarray(totals, dtype=np.float64)
    values = values[np.abs(values) > 1e-12]  # Zero is unchanged by a flip of its sign.
    if len(values) < 2:
        return 1.0  # Both signs of one difference are as extreme as each other.
    steps = _steps(values)
    return _normal(values) if steps is None else _exact(steps)


def _steps(values: NDArray[np.float64]) -> Steps | None:
    reach = float(np.abs(values).sum())
    for parts in PARTS:
        near = np.rint(values * parts)
        if np.allclose(values * parts, near, rtol=0, atol=1e-6):
            return near.astype(np.int64) if reach * parts <= LONGEST else None
    return np.rint(values * (LONGEST / reach)).astype(np.int64) if len(values) <= NEARLY else None


def _exact(steps: Steps) -> float:
    from scipy import fft

    sizes, counts = np.unique(np.abs(steps), return_counts=True)
    reach, seen = int(np.abs(steps).sum()), abs(int(steps.sum()))
    if seen == 0:
        return 1.0
    length = fft.next_fast_len(2 * reach + 1, real=True)
    table, frequency = _cosines(length), np.arange(length // 2 + 1)
    transform = np.ones(len(frequency))
    for size, count in zip(sizes, counts, strict=True):
        transform *= _power(table[size * frequency % length], int(count))
    chance = fft.irfft(transform, length)  # (length,) of the sums 0, 1, .. reach, and below zero from the end
    least = 2.0 ** max(1 - len(steps), -1000)  # all of one sign; anything smaller is rounding error
    return float(np.clip(2 * chance[seen : reach + 1].sum(), least, 1.0))


def _normal(values: NDArray[np.float64]) -> float:
    from scipy import special

    return float(2 * special.ndtr(-abs(values.sum()) / np.sqrt((values**2).sum())))


def _power(base: NDArray[np.float64], exponent: int) -> NDArray[np.float64]:
    """base ** exponent by squaring: numpy's own takes logarithms, at ten times the cost."""
    result = base if exponent % 2 else np.ones_like(base)
    while exponent := exponent // 2:
        base = base * base
        if exponent % 2:
            result = result * base
    return result


@lru_cache(maxsize=4)
def _cosines(length: int) -> NDArray[np.float64]:
    return np.cos(2 * np.pi * np.arange(length) / length)
