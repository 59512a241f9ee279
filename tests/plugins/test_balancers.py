"""The built-in balancers keep what they say; the contract itself is checked in test_contracts.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_balancers.keep_all import KeepAllBalancer
from leverplus_balancers.top_pn import TopPnBalancer
from leverplus_core import Candidate, Catalogue, RecipeError
from leverplus_core.testing import tiny_groups

RNG = np.random.default_rng(0)


def _candidate(name: str, accuracy: float, logprob: float = -1.0, info_score: float = 0.0) -> Candidate:
    return Candidate("q", (name,), "beam", "", "", accuracy, accuracy >= 0.5, logprob, info_score)


def _names(picked: list[Candidate]) -> list[str]:
    return [candidate.demonstrations[0] for candidate in picked]


def test_ranked_by_accuracy_then_logprob_then_info_score_then_ids() -> None:
    group = [
        _candidate("z", 0.6, -0.1, 0.9),
        _candidate("y", 1.0, -2.0, 0.9),
        _candidate("x", 1.0, -1.0, 0.1),
        _candidate("w", 1.0, -1.0, 0.2),
        _candidate("v", 1.0, -1.0, 0.1),
    ]
    for order in (group, group[::-1]):
        assert _names(TopPnBalancer().pick(order, RNG)) == ["w", "v", "x", "y", "z"]


def test_hard_negatives_are_those_that_came_close_not_the_first() -> None:
    """With accuracy 0 all round, the probability of the true answer decides."""
    group = [_candidate("right", 1.0)] + [_candidate(f"n{i}", 0.0, logprob=-9.0 + i) for i in range(6)]
    assert _names(TopPnBalancer(p=8, n=2).pick(group, RNG)) == ["right", "n5", "n4"]
    nearly = [*group, _candidate("nearly", 0.3, logprob=-50.0)]
    assert _names(TopPnBalancer(n=1).pick(nearly, RNG)) == ["right", "nearly"]


def test_a_question_with_too_few_positives_is_dropped() -> None:
    group = [_candidate("a", 1.0), _candidate("b", 0.0)]
    assert TopPnBalancer(min_pos=2).pick(group, RNG) == []
    assert TopPnBalancer().pick(group[1:], RNG) == []
    assert _names(TopPnBalancer(min_pos=0).pick(group[1:], RNG)) == ["b"]
    assert TopPnBalancer(min_pos=0).pick([], RNG) == []


@given(p=st.integers(0, 9), n=st.integers(0, 9), flags=st.lists(st.booleans(), max_size=20))
def test_counts(p: int, n: int, flags: list[bool]) -> None:
    group = [_candidate(f"d{i}", float(flag)) for i, flag in enumerate(flags)]
    picked = TopPnBalancer(p=p, n=n).pick(group, RNG)
    positives = sum(flags)
    assert sum(c.correct for c in picked) == (min(p, positives) if positives else 0)
    assert sum(not c.correct for c in picked) == (min(n, len(flags) - positives) if positives else 0)


def test_correct_is_the_recipes_word_not_the_accuracy() -> None:
    partly = replace(_candidate("a", 0.3), correct=True)
    assert TopPnBalancer(n=0).pick([partly], RNG) == [partly]


@pytest.mark.parametrize("key", ["p", "n", "min_pos"])
def test_counts_are_not_negative(key: str) -> None:
    with pytest.raises(RecipeError, match=f"balancer 'top_pn' in mine.yaml:3: {key}=-1: "):
        Catalogue.load(disabled="").build("balancer", "top_pn", {key: -1}, where="mine.yaml:3")


def test_keep_all_keeps_all() -> None:
    for group in tiny_groups():
        assert KeepAllBalancer().pick(group, RNG) == group
