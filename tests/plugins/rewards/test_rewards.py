"""The built-in rewards have the values the literature gives; the contract itself is checked in test_contracts.py."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core import Candidate, Catalog, DataError, RecipeError, Reward

CATALOG = Catalog.load(disabled="")
REWARDS = tuple(e.name for e in CATALOG.entries() if (e.kind, e.distribution) == ("reward", "leverplus"))
CORRECT_THRESHOLD = 0.5


def reward(name: str, **settings: object) -> Reward:
    return CATALOG.build("reward", name, settings)


def candidate(
    accuracy: float,
    p: float | None = None,
    gain: float | None = None,
    text_similarity: float | None = None,
    correct: bool | None = None,
) -> Candidate:
    right = accuracy >= CORRECT_THRESHOLD if correct is None else correct
    logprob = None if p is None else math.log(p)
    return Candidate("q7", (f"d{accuracy}",), "beam", "", "", accuracy, right, logprob, gain, text_similarity)


# Accuracy, probability of the true answer, InfoScore, text_similarity: correct, correct, wrong, wrong.
GROUP = [
    candidate(1.0, 0.5, 0.25, 1.0),
    candidate(0.6, 0.25, 0.0, 1.0),
    candidate(0.3, 0.25, -0.125, 0.5),
    candidate(0.0, 0.125, -0.5, 0.25),
]
GOLDEN: dict[str, list[float]] = {
    "separated": [3.0, 2.6, 0.3, 0.0],
    "hard_plus_soft": [2.0, 1.6, 0.3, 0.0],
    "hard_plus_soft_v2": [3.0, 2.6, 0.3, 0.0],
    "hard_only": [1.0, 1.0, 0.0, 0.0],
    "soft_only": [1.0, 0.6, 0.3, 0.0],
    "hard_plus_gt_prob": [1.5, 1.25, 0.25, 0.125],
    "separated_gt_prob": [2.5, 2.25, 0.25, 0.125],
    "hard_gt_prob_rel": [2.5, 2.25, 0.25 + 0.05, 0.125 + 0.025],
    "info_score": [0.25, 0.0, -0.125, -0.5],
    "mixed": [2.0, 1.6, 0.3, 0.0],  # two correct are few
}
# What the defaults promise: the range of correct answers, and of wrong ones.
RANGES: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "separated": ((2, 3), (0, 1)),
    "hard_plus_soft": ((1, 2), (0, 1)),
    "hard_plus_soft_v2": ((2, 3), (0, 1)),
    "hard_only": ((1, 1), (0, 0)),
    "soft_only": ((0, 1), (0, 1)),
    "hard_plus_gt_prob": ((1, 2), (0, 1)),
    "separated_gt_prob": ((2, 3), (0, 1)),
    "hard_gt_prob_rel": ((2, 3), (0, 1.1)),
    "info_score": ((-1, 1), (-1, 1)),
    "mixed": ((1, 3), (0, 1)),
}
# Not those that go by accuracy alone, or by the gain whatever was answered.
SEPARATES = [name for name in REWARDS if name not in ("soft_only", "info_score")]

unit = st.floats(0, 1)
candidates = st.builds(
    candidate, accuracy=unit, p=st.floats(1e-6, 1), gain=st.floats(-1, 1), text_similarity=unit, correct=st.booleans()
)
groups = st.lists(candidates, max_size=12)
every = pytest.mark.parametrize("name", REWARDS)


def test_every_built_in_has_a_golden_value_and_a_range() -> None:
    assert set(REWARDS) == set(GOLDEN) == set(RANGES)


@every
def test_golden_values(name: str) -> None:
    values = reward(name).compute(GROUP)
    assert values == pytest.approx(GOLDEN[name], rel=1e-12)
    assert all(type(value) is float for value in values)
    assert reward(name).compute([]) == []


@every
@given(group=groups)
def test_range_of_the_defaults(name: str, group: list[Candidate]) -> None:
    right, wrong = RANGES[name]
    for value, c in zip(reward(name).compute(group), group, strict=True):
        low, high = right if c.correct else wrong
        assert low - 1e-9 <= value <= high + 1e-9


@pytest.mark.parametrize("name", SEPARATES)
@given(group=groups)
def test_no_wrong_answer_is_above_a_correct_one(name: str, group: list[Candidate]) -> None:
    values = reward(name).compute(group)
    right = [value for value, c in zip(values, group, strict=True) if c.correct]
    wrong = [value for value, c in zip(values, group, strict=True) if not c.correct]
    assert not right or not wrong or min(right) >= max(wrong) - 1e-9


@every
@given(group=groups, low=candidates, more=st.tuples(unit, unit, unit, unit))
def test_more_of_anything_measured_is_never_less(
    name: str, group: list[Candidate], low: Candidate, more: tuple[float, float, float, float]
) -> None:
    """A second candidate that is as correct and has at least as much of each measurement gets at least as much."""
    assert low.logprob is not None and low.info_score is not None and low.text_similarity is not None
    high = replace(
        low,
        accuracy=low.accuracy + more[0] * (1 - low.accuracy),
        logprob=low.logprob * (1 - more[1]),
        info_score=low.info_score + more[2] * (1 - low.info_score),
        text_similarity=low.text_similarity + more[3] * (1 - low.text_similarity),
    )
    values = reward(name).compute([*group, low, high])
    assert values[-1] >= values[-2] - 1e-12


@every
@given(group=groups, seed=st.randoms(use_true_random=False))
def test_the_order_of_the_group_does_not_matter(name: str, group: list[Candidate], seed: Any) -> None:
    order = list(range(len(group)))
    seed.shuffle(order)
    values = reward(name).compute(group)
    assert reward(name).compute([group[i] for i in order]) == [values[i] for i in order]


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("separated", {"gap": 0.5}, [1.5, 1.1, 0.3, 0.0]),
        ("separated", {"soft": 0.5}, [2.5, 2.3, 0.15, 0.0]),
        ("hard_plus_soft", {"hard": 3, "soft": 0}, [3.0, 3.0, 0.0, 0.0]),
        ("hard_plus_gt_prob", {"hard": 2, "prob": 4}, [4.0, 3.0, 1.0, 0.5]),
        ("separated_gt_prob", {"gap": 5}, [5.5, 5.25, 0.25, 0.125]),
        ("hard_gt_prob_rel", {"hard": 0, "prob": 0, "rel": 1}, [0.0, 0.0, 0.5, 0.25]),
        ("info_score", {"gain": 2}, [0.5, 0.0, -0.25, -1.0]),
        ("mixed", {"many": 2}, [3.0, 2.6, 0.3, 0.0]),
        ("mixed", {"many": 2, "gap": 4, "soft": 0}, [4.0, 4.0, 0.0, 0.0]),
        ("mixed", {"many": 9, "hard": 0.5}, [1.5, 1.1, 0.3, 0.0]),
    ],
)
def test_weights_and_thresholds_are_settings(name: str, settings: dict[str, object], expected: list[float]) -> None:
    assert reward(name, **settings).compute(GROUP) == pytest.approx(expected, rel=1e-12)


@given(right=st.integers(0, 9), wrong=st.integers(0, 9), many=st.integers(1, 9))
def test_mixed_goes_by_the_number_of_correct_candidates(right: int, wrong: int, many: int) -> None:
    group = [candidate(1.0)] * right + [candidate(0.0)] * wrong
    other = reward("separated" if right >= many else "hard_plus_soft")
    assert reward("mixed", many=many).compute(group) == other.compute(group)


def test_correct_is_the_recipes_word_not_the_accuracy() -> None:
    """`correct_threshold` decides; a reward never looks at the accuracy to tell."""
    strict = [replace(c, correct=c.accuracy >= 1.0) for c in GROUP]
    assert reward("separated").compute(strict) == [3.0, 0.6, 0.3, 0.0]
    assert reward("hard_only").compute(strict) == [1.0, 0.0, 0.0, 0.0]


READS = {
    "hard_plus_gt_prob": "logprob",
    "separated_gt_prob": "logprob",
    "hard_gt_prob_rel": "logprob",
    "info_score": "info_score",
}


@every
def test_a_reward_needs_only_what_it_reads(name: str) -> None:
    bare = [replace(c, logprob=None, info_score=None, text_similarity=None) for c in GROUP]
    if name not in READS:
        assert reward(name).compute(bare) == pytest.approx(GOLDEN[name])
        assert not reward(name).needs()
        return
    assert READS[name] in reward(name).needs()
    with pytest.raises(DataError) as caught:
        reward(name).compute(bare)
    message = str(caught.value)
    assert f"reward '{name}' needs each candidate's {READS[name]}; one of question q7 has none." in message
    assert "Measure these candidates" in message and "\n" not in message


def test_nearness_is_read_of_wrong_answers_only() -> None:
    far = [replace(c, text_similarity=None) if c.correct else c for c in GROUP]
    assert reward("hard_gt_prob_rel").compute(far) == reward("hard_gt_prob_rel").compute(GROUP)
    with pytest.raises(DataError, match="text_similarity; one of question q7"):
        reward("hard_gt_prob_rel").compute([replace(c, text_similarity=None) for c in GROUP])


def test_a_weight_of_nothing_reads_nothing() -> None:
    bare = [replace(c, logprob=None) for c in GROUP]
    part = reward("hard_plus_gt_prob", prob=0)
    assert part.compute(bare) == [1.0, 1.0, 0.0, 0.0] and not part.needs()
    assert reward("hard_gt_prob_rel").needs() == {"logprob", "text_similarity"}


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "wide"])
@pytest.mark.parametrize(("name", "key"), [("separated", "gap"), ("hard_gt_prob_rel", "rel"), ("mixed", "hard")])
def test_a_weight_is_a_finite_number_and_not_negative(name: str, key: str, value: object) -> None:
    with pytest.raises(RecipeError, match=f"reward '{name}': {key}="):
        reward(name, **{key: value})


def test_an_error_names_a_third_partys_reward_too() -> None:
    class NearEnoughReward(Reward):
        """Similarity."""

        def compute(self, group: Any) -> list[float]:
            return [self.require(c, "text_similarity") for c in group]

    assert NearEnoughReward().compute(GROUP) == [1.0, 1.0, 0.5, 0.25]
    with pytest.raises(DataError, match="reward 'near_enough' needs each candidate's text_similarity"):
        NearEnoughReward().compute([replace(GROUP[0], text_similarity=None)])
