"""The built-in rewards have the values the literature gives; the contract itself is checked in test_contracts.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core import Candidate, Catalogue, RecipeError
from leverplus_rewards.hard_plus_soft import HardPlusSoftReward
from leverplus_rewards.separated import SeparatedReward


def _candidate(accuracy: float, correct: bool) -> Candidate:
    return Candidate("q", ("d",), "beam", "", "", accuracy, correct, -1.0, 0.0)


TABLE = [(1.0, True), (0.6, True), (0.3, False), (0.0, False)]
GROUP = [_candidate(*row) for row in TABLE]


def test_separated() -> None:
    assert SeparatedReward().of(GROUP) == [3.0, 2.6, 0.3, 0.0]
    assert SeparatedReward(gap=0.5).of(GROUP) == [1.5, 1.1, 0.3, 0.0]


def test_hard_plus_soft() -> None:
    assert HardPlusSoftReward().of(GROUP) == [2.0, 1.6, 0.3, 0.0]


@given(accuracy=st.floats(0, 1))
def test_ranges(accuracy: float) -> None:
    right, wrong = _candidate(accuracy, True), _candidate(accuracy, False)
    high, low = SeparatedReward().of([right, wrong])
    assert 0 <= low <= 1 < 2 <= high <= 3
    assert all(0 <= reward <= 2 for reward in HardPlusSoftReward().of([right, wrong]))


def test_correct_is_a_float_not_a_flag() -> None:
    for reward in (SeparatedReward(), HardPlusSoftReward()):
        assert all(type(value) is float for value in reward.of(GROUP))


@pytest.mark.parametrize("gap", [-1, float("nan"), float("inf"), "wide"])
def test_a_gap_is_a_finite_number_and_not_negative(gap: object) -> None:
    with pytest.raises(RecipeError, match="reward 'separated': gap="):
        Catalogue.load(disabled="").build("reward", "separated", {"gap": gap})
