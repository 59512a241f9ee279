from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from leverplus_core.statistics import permutation, sign_flip_p_value


def enumerated(values: list[float]) -> float:
    """Of all sign patterns, those whose sum is at least as far from zero."""
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    sums = np.abs(signs @ np.array(values))
    return float(np.mean(sums >= abs(sum(values)) - 1e-9))


grades = st.sampled_from([-1.0, -0.9, -0.6, -0.4, -0.3, -0.1, 0.0, 0.1, 0.3, 0.4, 0.6, 0.9, 1.0])


@settings(deadline=None)
@given(st.lists(grades, min_size=1, max_size=10))
def test_graded_differences_by_enumeration(values: list[float]) -> None:
    wanted = enumerated(values) if len([v for v in values if v]) > 1 else 1.0
    assert sign_flip_p_value(values) == pytest.approx(wanted)


@pytest.mark.parametrize("runs", [2, 3, 7, 9])
def test_means_over_seeds_by_enumeration(runs: int) -> None:
    rng = np.random.default_rng(runs)
    values = (rng.choice([-1, -0.6, -0.3, 0, 0.3, 0.9], (runs, 9)).mean(axis=0)).tolist()
    assert sign_flip_p_value(values) == pytest.approx(enumerated(values))


def test_differences_on_no_step() -> None:
    values = np.random.default_rng(1).normal(0.2, 1, 12)
    assert sign_flip_p_value(values) == pytest.approx(enumerated(values.tolist()), abs=2e-3)


def test_a_large_sample_against_sampled_signs() -> None:
    values = np.random.default_rng(2).choice([-1, -0.6, 0, 0, 0, 0.6, 1], 800, p=[0.09, 0.1, 0.2, 0.2, 0.2, 0.1, 0.11])
    sampled = stats.permutation_test(
        (values,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", n_resamples=19999, rng=3, batch=2000
    )
    assert sign_flip_p_value(values) == pytest.approx(float(sampled.pvalue), abs=0.012)


def test_the_normal_limit_goes_on_where_the_exact_test_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(4).choice([-1, -0.6, 0.6, 1], 6000, p=[0.24, 0.25, 0.25, 0.26])
    limit = permutation._normal(values[values != 0])
    monkeypatch.setattr(permutation, "LONGEST", 1 << 20)
    assert sign_flip_p_value(values) == pytest.approx(limit, rel=2e-2)  # a lattice has no p between its own


def test_all_the_same_way_is_never_quite_certain() -> None:
    assert sign_flip_p_value([0.6] * 20) == pytest.approx(2 * 0.5**20)
    assert 0 < sign_flip_p_value([1.0] * 800) < 1e-15
    assert sign_flip_p_value([]) == sign_flip_p_value([0.3]) == sign_flip_p_value([0.0, 0.0, 0.3]) == 1.0
