from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from leverplus_core.statistics import PairedDifference, corrected, paired_difference


def family(seed: int, m: int, n: int = 60, most: float = 0.5) -> list[PairedDifference]:
    """m comparisons of n questions with effects from none to `most`."""
    rng = np.random.default_rng(seed)
    found = []
    for effect in rng.uniform(0, most, m) * rng.choice([-1, 0, 1], m):
        b = rng.choice([0, 0.6, 1], n)
        gained = rng.random(n) < abs(effect)
        moved = np.where(rng.random(n) < 0.2, rng.choice([0, 0.6, 1], n), b)
        found.append(paired_difference(np.where(gained, 1.0 if effect > 0 else 0.0, moved), b))
    return found


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 20))
def test_marks_intervals_and_holm_agree(seed: int, m: int) -> None:
    found = family(seed, m)
    fixed = corrected(found)
    _, wanted, _, _ = multipletests([d.p_value for d in found], method="holm")
    assert [c.p_holm for c in fixed] == pytest.approx(wanted)
    for difference, c in zip(found, fixed, strict=True):
        assert c.comparisons == m
        assert (c.mark != "no difference seen") == (c.p_holm <= 0.05) == (c.low > 0 or c.high < 0)
        assert c.mark == {1: "better", -1: "worse", 0: "no difference seen"}[int(c.low > 0) - int(c.high < 0)]
        assert 1 - 0.05 <= c.level <= 1 - 0.05 / m + 1e-12
        assert c.low <= difference.low + 1e-12 and difference.high - 1e-12 <= c.high  # never narrower than at 95%
        if difference.p_value > 0.05 / m and c.mark != "no difference seen":
            assert c.level < 1 - 0.05 / m  # Holm's later step, not Bonferroni's


def test_holm_rejects_at_its_steps_by_hand() -> None:
    # Eight all one way of ten (p = .0078) among three: Bonferroni asks for .0167, and nine of ten likewise.
    strong, weak = paired_difference([1.0] * 9, [0.4] * 9), paired_difference([1.0] * 7, [0.4] * 7)
    assert (strong.p_value, weak.p_value) == (pytest.approx(2 / 2**9), pytest.approx(2 / 2**7))
    none = paired_difference([1.0, 0.0] * 4, [0.0, 1.0] * 4)
    fixed = corrected([weak, none, strong, none])
    # Sorted: .0039 <= .05 / 4, .0156 <= .05 / 3 where Bonferroni's .0125 is not reached, 1 > .05 / 2.
    assert [c.mark for c in fixed] == ["better", "no difference seen", "better", "no difference seen"]
    assert [c.p_holm for c in fixed] == pytest.approx([3 * 2 / 2**7, 1, 4 * 2 / 2**9, 1])
    assert [c.level for c in fixed] == pytest.approx([1 - 0.05 / 3, 1 - 0.05 / 4, 1 - 0.05 / 4, 1 - 0.05 / 4])


def test_an_interval_holds_zero_where_the_permutation_test_does_not_reject() -> None:
    # Five of fifty, all one way: t leaves zero out at 95% or nearly so, but two in 32 sign patterns do as much.
    a = np.array([1.0] * 5 + [0.6] * 45)
    difference = paired_difference(a, [0.4] * 5 + [0.6] * 45)
    assert difference.low > 0 and difference.p_value == pytest.approx(2 / 2**5)
    (only,) = corrected([difference])
    assert (only.low, only.mark) == (0.0, "no difference seen") and only.high == pytest.approx(difference.high)


def test_an_empty_family() -> None:
    assert corrected([]) == []
