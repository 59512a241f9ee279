"""Golden values are worked out by hand or by another route than the code's."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leverplus_core.errors import DataError
from leverplus_core.statistics import accuracy_interval, paired_difference

T_3 = 3.182446305284263  # 97.5% point of Student's t, 3 degrees of freedom (printed tables: 3.182)
T_4 = 2.7764451051977987  # the same, 4 degrees


def wilson(mean: float, w: float) -> tuple[float, float]:
    """The shares p with (p - mean)^2 = w p (1 - p), by the roots of the quadratic."""
    low, high = np.sort(np.roots([1 + w, -(2 * mean + w), mean**2]))
    return float(low), float(high)


def test_interval_of_a_mean_by_hand() -> None:
    # Scores .2 .4 .6 .8 and half a 0 and half a 1: center .5, squares .09 .01 .01 .09 and .25, in all .45, over 4
    # times 5, so that w = t^2 (.45 / 20) / .25.
    found = accuracy_interval([0.2, 0.4, 0.6, 0.8])
    low, high = wilson(0.5, T_3**2 * 0.45 / 20 / 0.25)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, low, high))


def test_interval_of_shares_is_nearly_wilson(n: int = 400) -> None:
    from statsmodels.stats.proportion import proportion_confint

    found = accuracy_interval([1.0] * 100 + [0.0] * (n - 100))
    assert (found.low, found.high) == pytest.approx(proportion_confint(100, n, method="wilson"), abs=5e-4)


def test_questions_about_one_image_widen_the_interval_of_a_mean() -> None:
    scores = [0.0, 1.0, 1.0, 0.6, 0.0, 1.0, 0.3, 0.6, 1.0, 0.9] * 4
    alone, twice = accuracy_interval(scores), accuracy_interval(np.repeat(scores, 2))
    together = accuracy_interval(np.repeat(scores, 2), [i // 2 for i in range(80)])
    assert twice.high - twice.low < 0.75 * (alone.high - alone.low)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=0.005)


@pytest.mark.parametrize(("score", "n"), [(0.0, 10), (1.0, 10), (0.6, 25), (1.0, 1)])
def test_equal_scores_keep_a_width(score: float, n: int) -> None:
    # Wilson: the shares p with (p - score)^2 = z^2 p (1 - p) / n.
    z2 = 1.959963984540054**2
    roots = np.sort(np.roots([1 + z2 / n, -(2 * score + z2 / n), score**2]))
    found = accuracy_interval([score] * n)
    assert found.mean == score
    assert (found.low, found.high) == pytest.approx(tuple(roots), abs=1e-9)
    assert found.high - found.low > 0.1


def test_level_widens_the_interval() -> None:
    narrow, wide = accuracy_interval([0, 1, 1, 0, 1, 0.6], level=0.5), accuracy_interval([0, 1, 1, 0, 1, 0.6])
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_intervals_cover_at_their_level() -> None:
    rng = np.random.default_rng(3)
    grades, shares = [0.0, 0.3, 0.6, 0.9, 1.0], [0.4, 0.1, 0.1, 0.1, 0.3]
    truth = float(np.dot(grades, shares))
    found = [accuracy_interval(rng.choice(grades, size=100, p=shares)) for _ in range(400)]
    assert 0.92 < np.mean([i.low <= truth <= i.high for i in found]) < 0.98


def test_paired_difference_by_hand() -> None:
    # Differences 1 0 .4 .6 -.5: mean .3, squared deviations .49 .09 .01 .09 .64 = 1.32, error sqrt(1.32 / 4 / 5).
    a, b = [1.0, 0.6, 1.0, 0.6, 0.0], [0.0, 0.6, 0.6, 0.0, 0.5]
    found = paired_difference(a, b)
    variance = (1.32 + 2 * 0.14**2) / 4 / 5  # with two of .14 more, see PRIOR
    # Johnson's shift, the third moment over 6 n variance: cubes .343 -.027 .001 .027 -.512, in all -.168.
    center, half = 0.3 - 0.168 / 5**3 / 6 / variance, T_4 * math.sqrt(variance)
    assert found.n == 5
    assert (found.delta, found.low, found.high) == pytest.approx((0.3, center - half, min(1.0, center + half)))
    # Of all sign patterns of the five differences, those whose sum is at least as far from zero as 1.5.
    signs = itertools.product((1, -1), repeat=5)
    sums = [abs(sum(s * d for s, d in zip(pattern, (1, 0, 0.4, 0.6, -0.5), strict=True))) for pattern in signs]
    assert found.p_value == pytest.approx(sum(s >= 1.5 - 1e-9 for s in sums) / 32)


def test_swapping_sides_mirrors_the_result() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.choice([0, 0.6, 1], 60), rng.choice([0, 0.6, 1], 60)
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (back.delta, back.low, back.high) == pytest.approx((-there.delta, -there.high, -there.low))
    assert back.p_value == pytest.approx(there.p_value, abs=0.02)


def test_pairing_sees_what_unpaired_spread_would_hide() -> None:
    b = np.array([0.0, 1.0] * 50)
    a = b.copy()
    a[:20:2] = 1.0  # ten of the hundred get better, none worse
    found = paired_difference(a, b)
    assert found.delta == pytest.approx(0.1) and found.low > 0
    assert found.p_value == pytest.approx(2 / 2**10)  # all ten go the same way


def test_no_difference_at_all() -> None:
    found = paired_difference([0.3, 1, 0] * 20, [0.3, 1, 0] * 20)
    # Of sixty questions none differed: Clopper and Pearson's bound on the share that do.
    assert (found.delta, found.p_value) == (0.0, 1.0)
    assert (-found.low, found.high) == pytest.approx((1 - 0.025 ** (1 / 60),) * 2)
    pairs = paired_difference([0.3, 1, 0] * 20, [0.3, 1, 0] * 20, [i // 2 for i in range(60)])
    assert pairs.high == pytest.approx(1 - 0.025 ** (1 / 30))


@pytest.mark.parametrize("n", range(1, 12))
def test_equal_differences_claim_no_more_than_the_sign_test(n: int) -> None:
    found = paired_difference([0.9] * n, [0.5] * n)
    assert found.delta == pytest.approx(0.4) and found.high == pytest.approx(0.4)
    assert found.p_value == pytest.approx(2 / 2**n)
    assert (found.low > 0) == (found.p_value < 0.05) == (n >= 6)
    assert found.low == pytest.approx(0.4 * (2 * 0.025 ** (1 / n) - 1))
    assert paired_difference([0.5] * n, [0.9] * n).high == pytest.approx(-found.low)


def test_p_values_are_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(5)
    p = [paired_difference(rng.choice([0, 0.6, 1], 12), rng.choice([0, 0.6, 1], 12)).p_value for _ in range(150)]
    assert np.mean(np.array(p) <= 0.05) < 0.1 and 0.4 < np.mean(p) < 0.7


def test_singleton_clusters_change_nothing() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.random(30), rng.random(30)
    assert paired_difference(a, b, clusters=[f"image {i}" for i in range(30)]) == paired_difference(a, b)


def test_clusters_by_hand() -> None:
    # Four images of two questions whose differences are alike: eight rows, but only four independent ones.
    per_image = [0.5, 0.1, 0.3, -0.1]
    a = [0.5 + d for d in per_image for _ in range(2)]
    images = [i for i in range(4) for _ in range(2)]
    found = paired_difference(a, [0.5] * 8, clusters=images)
    alone = paired_difference(a, [0.5] * 8)
    # Sandwich: sum over clusters of (2 (d - .2))^2 = 4 (.09 + .01 + .01 + .09) = .8, over 8^2,
    # times the small-sample factor 4/3 * 7/7; t with 3 degrees of freedom.
    half = T_3 * math.sqrt((0.8 * 4 / 3 + 2 * 0.14**2 * 2**0.5 * 8 / 7) / 64)
    assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half))
    assert found.low < alone.low
    # Sign flips of whole images: .5 .1 .3 .1 all alike (sum 1), or one .1 against the rest (.8); and their mirrors.
    assert found.p_value == pytest.approx(6 / 16)


def test_one_cluster_says_nothing() -> None:
    found = paired_difference([1, 0.6, 1, 1], [0, 0, 0, 0.3], clusters=["x"] * 4)
    assert (found.low, found.high, found.p_value) == (-1.0, 1.0, 1.0)


def test_differences_that_cancel_within_clusters_are_not_certain() -> None:
    found = paired_difference([1, 0, 1, 0], [0, 1, 0, 1], clusters=["x", "x", "y", "y"])
    assert found.delta == 0 and found.low < -0.5 and found.high > 0.5


@pytest.mark.parametrize("bad", [[], [math.nan], [0.5, math.inf], [1.2], [-0.1], [[[0.1, 0.2]]]])
def test_bad_scores_are_one_line(bad: list[float]) -> None:
    with pytest.raises(DataError) as e:
        accuracy_interval(bad)
    assert "\n" not in str(e.value)
    with pytest.raises(DataError):
        paired_difference(bad, bad)


def test_lengths_must_match() -> None:
    with pytest.raises(DataError, match="2 and 1"):
        paired_difference([0, 1], [1])
    with pytest.raises(DataError, match="3 clusters for 2"):
        paired_difference([0, 1], [1, 0], clusters=["a", "b", "c"])


def test_runs_that_are_alike_are_one_run() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.choice([0, 0.6, 1], 40), rng.choice([0, 0.6, 1], 40)
    one, three = paired_difference(a, b), paired_difference([a] * 3, b)
    assert (three.delta, three.error, three.p_value) == pytest.approx((one.delta, one.error, one.p_value))


def test_the_spread_between_runs_by_hand() -> None:
    # Every question of a run scores alike, so that questions say nothing of the spread: variance of .2 .5 .8 is .09.
    runs = np.repeat([[0.2], [0.5], [0.8]], 10, axis=1)
    found = paired_difference(runs, np.full(10, 0.5))
    within = 2 * 0.14**2 * 10 / 9 / 100
    assert found.error == pytest.approx(math.sqrt(within + 0.09 / 3))
    assert found.df == pytest.approx(max(2, (within + 0.03) ** 2 / (within**2 / 9 + 0.03**2 / 2)))
    # The same in step with the other side, run by run, is no spread at all.
    level = paired_difference(runs, runs - 0.1)
    assert level.delta == pytest.approx(0.1) and level.error == pytest.approx(math.sqrt(within))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_degrees_of_freedom_are_those_of_a_part_at_least(seed: int, ours: int, theirs: int, clustered: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.choice([0, 0.6, 1], (ours, 24)), rng.choice([0, 0.6, 1], (theirs, 24))
    found = paired_difference(a, b, [i // 2 for i in range(24)] if clustered else None)
    free = found.units - 1
    assert min([free, *(runs - 1 for runs in (ours, theirs) if runs > 1)]) - 1e-9 <= found.df <= free + 1e-9
    assert -1 <= found.low <= found.delta <= found.high <= 1
