from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from leverplus_core.errors import DataError
from leverplus_core.statistics import corrected, detectable_difference, paired_difference, questions_needed


def spread(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.choice([0, 0.6, 1], n), rng.choice([0, 0.6, 1], n)


def test_detectable_against_the_noncentral_t() -> None:
    found = paired_difference(*spread(100))
    effect = detectable_difference(found, comparisons=16)
    cut = stats.t.ppf(1 - 0.05 / 32, 99)
    assert stats.nct.sf(cut, 99, effect / found.error) == pytest.approx(0.8, abs=0.003)


def test_more_comparisons_and_more_power_ask_for_more() -> None:
    found = paired_difference(*spread(100))
    plain = detectable_difference(found)
    assert plain < detectable_difference(found, comparisons=16) and plain < detectable_difference(found, power=0.9)
    assert questions_needed(found, 0.02) < questions_needed(found, 0.02, comparisons=16)
    assert questions_needed(found, -0.02) == questions_needed(found, 0.02) > questions_needed(found, 0.03)


def test_the_two_are_each_other_s_inverse() -> None:
    found = paired_difference(*spread(400))
    assert questions_needed(found, detectable_difference(found, comparisons=4), comparisons=4) == pytest.approx(
        400, abs=2
    )


def test_questions_needed_by_hand() -> None:
    found = paired_difference(*spread(800))
    # The normal approximation, (1.959964 + .841621)^2 (sd / effect)^2, is short of the t-test's by about two.
    sd = found.error * math.sqrt(800)
    assert questions_needed(found, 0.01) == pytest.approx((1.959964 + 0.841621) ** 2 * (sd / 0.01) ** 2, rel=1e-3)


def test_a_difference_as_large_as_said_is_marked_as_often_as_said() -> None:
    rng, grades = np.random.default_rng(7), np.array([0, 0.6, 1])

    def draw(n: int, gain: float) -> tuple[np.ndarray, np.ndarray]:
        b = grades[rng.choice(3, n, p=[0.5, 0.1, 0.4])]
        flipped = np.where(rng.random(n) < 0.2, grades[rng.choice(3, n, p=[0.5, 0.1, 0.4])], b)
        return np.where((flipped == 0) & (rng.random(n) < gain), 1.0, flipped), b

    pilot = paired_difference(*draw(400_000, 0.1))
    n = questions_needed(pilot, pilot.delta)
    marked = [corrected([paired_difference(*draw(n, 0.1))])[0].mark == "better" for _ in range(400)]
    assert 0.7 < np.mean(marked) < 0.88


def test_one_cluster_shows_nothing() -> None:
    assert detectable_difference(paired_difference([1, 0.6], [0, 0.6], ["x", "x"])) == 1.0


@pytest.mark.parametrize(
    "bad", [{"effect": 0.0}, {"effect": 1.5}, {"effect": 0.1, "power": 1.0}, {"effect": 0.1, "comparisons": 0}]
)
def test_what_cannot_be_asked_is_one_line(bad: dict[str, float]) -> None:
    with pytest.raises(DataError) as e:
        questions_needed(paired_difference(*spread(50)), **bad)
    assert "\n" not in str(e.value)
