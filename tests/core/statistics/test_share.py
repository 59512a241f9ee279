from __future__ import annotations

import math

import numpy as np
import pytest

from leverplus_core.errors import DataError
from leverplus_core.statistics import share_closed


def scores(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Accuracies of a floor, a method that closes half of the gap, and a ceiling."""
    rng = np.random.default_rng(seed)
    floor = rng.choice([0, 0.6, 1], n, p=[0.5, 0.1, 0.4])
    ceiling = np.where(rng.random(n) < 0.6, 1.0, floor)
    return floor, np.where(rng.random(n) < 0.5, ceiling, floor), ceiling


def test_a_share_by_hand() -> None:
    found = share_closed([0, 0, 0, 0.6] * 10, [1, 0, 0.6, 0.6] * 10, [1, 1, 1, 0.6] * 10)
    assert found.n == 40 and found.share == pytest.approx(1.6 / 3)
    assert found.low < found.share < found.high and found.gap.delta == pytest.approx(0.75)


def test_the_ends_are_certain() -> None:
    floor, _, ceiling = scores(60)
    for method, share in ((floor, 0.0), (ceiling, 1.0)):
        found = share_closed(floor, method, ceiling)
        assert (found.share, found.low, found.high) == pytest.approx((share, share, share))


def test_a_method_may_fall_below_the_floor_or_rise_above_the_ceiling() -> None:
    floor, _, ceiling = scores(200)
    assert share_closed(floor, np.zeros(200), ceiling).high < 0
    assert share_closed(floor, np.ones(200), ceiling).low > 1


def test_no_gap_gives_no_share() -> None:
    floor, method, _ = scores(50)
    for ceiling in (floor, floor[::-1].copy()):
        found = share_closed(floor, method, ceiling)
        assert all(math.isnan(v) for v in (found.share, found.low, found.high))
        assert found.gap.low <= 0 <= found.gap.high


def test_it_is_paired_seeded_and_clustered() -> None:
    floor, method, ceiling = scores(120)
    once = share_closed(floor, method, ceiling, seed=1)
    assert share_closed(floor, method, ceiling, seed=1) == once
    images = [i // 4 for i in range(480)]
    wide, narrow = (
        share_closed(*(np.repeat(s, 4) for s in (floor, method, ceiling)), clusters=c) for c in (images, None)
    )
    assert (wide.low, wide.high) == pytest.approx((once.low, once.high), abs=0.02)
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)


def test_the_interval_covers() -> None:
    truth = 0.5
    found = [share_closed(*scores(150, seed)) for seed in range(60)]
    assert np.mean([f.low <= truth <= f.high for f in found]) > 0.85


def test_lengths_must_match() -> None:
    with pytest.raises(DataError, match="differ in length"):
        share_closed([0, 0], [1], [1, 1])
