from __future__ import annotations

import math

import pytest

from leverplus_core.statistics import published_interval, unpaired_interval


def test_the_interval_that_n_implies() -> None:
    """Wilson's formula by hand, and its limits."""
    for accuracy, n in ((0.5015, 800), (0.0, 100), (1.0, 100), (0.3, 1)):
        z = 1.959963984540054
        center = (accuracy + z * z / 2 / n) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(accuracy * (1 - accuracy) / n + z * z / 4 / n / n)
        found = published_interval(accuracy, n)
        assert (found.mean, found.low, found.high) == (
            accuracy, pytest.approx(center - half, abs=1e-12), pytest.approx(center + half, abs=1e-12),
        )  # fmt: skip


def test_the_unpaired_interval() -> None:
    """Newcombe (1998), table II, method 10: 56/70 - 48/80, 9/10 - 3/10, 10/10 - 0/20, 10/10 - 0/10."""
    for a, n_a, b, n_b, low, high in (
        (56, 70, 48, 80, 0.0524, 0.3339), (9, 10, 3, 10, 0.1705, 0.8090),
        (10, 10, 0, 20, 0.6791, 1.0), (10, 10, 0, 10, 0.6075, 1.0),
    ):  # fmt: skip
        assert unpaired_interval(a / n_a, n_a, b / n_b, n_b) == pytest.approx((low, high), abs=5e-5)
        assert unpaired_interval(b / n_b, n_b, a / n_a, n_a) == pytest.approx((-high, -low), abs=5e-5)
