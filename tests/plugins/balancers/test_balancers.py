"""The built-in balancers keep what they say; the contract itself is checked in test_contracts.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core import Balancer, Candidate, Catalog, RecipeError
from leverplus_core.candidates.stats import summary
from leverplus_core.testing import tiny_groups

CATALOG = Catalog.load(disabled="")
COUNT = st.integers(0, 14)


def balancer(name: str, **settings: object) -> Balancer:
    return CATALOG.build("balancer", name, settings)


def candidate(name: str, accuracy: float, logprob: float | None = -1.0, info_score: float | None = 0.0) -> Candidate:
    return Candidate("q", (name,), "beam", "", "", accuracy, accuracy >= 0.5, logprob, info_score)


def group_of(positives: int, negatives: int) -> list[Candidate]:
    """Positives and negatives in turn, so that neither stands first."""
    right = [candidate(f"p{i}", 1.0, logprob=-float(i)) for i in range(positives)]
    wrong = [candidate(f"n{i}", 0.0, logprob=-float(i)) for i in range(negatives)]
    return [c for pair in zip(right, wrong, strict=False) for c in pair] + right[len(wrong) :] + wrong[len(right) :]


def select(part: Balancer, group: Sequence[Candidate], seed: int = 0) -> list[Candidate]:
    return part.select(group, np.random.default_rng(seed))


def names(picked: Sequence[Candidate]) -> list[str]:
    return [c.demonstrations[0] for c in picked]


def sizes(picked: Sequence[Candidate]) -> tuple[int, int]:
    positives = sum(c.correct for c in picked)
    return positives, len(picked) - positives


def shortfall(part: Balancer, positives: int, negatives: int) -> str:
    group = group_of(positives, negatives)
    return part.shortfall(group, select(part, group))


def test_ranked_by_accuracy_then_logprob_then_info_score_then_ids() -> None:
    group = [
        candidate("z", 0.6, -0.1, 0.9),
        candidate("y", 1.0, -2.0, 0.9),
        candidate("x", 1.0, -1.0, 0.1),
        candidate("w", 1.0, -1.0, 0.2),
        candidate("v", 1.0, -1.0, 0.1),
        candidate("u", 1.0, None, 0.9),
        candidate("t", 1.0, -1.0, None),
    ]
    for order in (group, group[::-1]):
        assert names(select(balancer("top_pn", p=7), order)) == ["w", "v", "x", "t", "y", "u", "z"]


def test_hard_negatives_are_those_that_came_close_not_the_first() -> None:
    """With accuracy 0 all round, the probability of the true answer decides."""
    group = [candidate("right", 1.0)] + [candidate(f"n{i}", 0.0, logprob=-9.0 + i) for i in range(6)]
    assert names(select(balancer("top_pn", p=8, n=2, fill=False), group)) == ["right", "n5", "n4"]
    nearly = [*group, candidate("nearly", 0.3, logprob=-50.0)]
    assert names(select(balancer("top_pn", n=1, fill=False), nearly)) == ["right", "nearly"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("top_pn", {"p": 0, "min_pos": 0, "fill": False, "n": 3}),
        ("top_pn", {"p": 3, "n": 0, "min_pos": 0}),
        ("limit", {"order": "best", "max_neg": 3}),
    ],
)
@given(shuffle=st.permutations(range(8)))
def test_a_near_negative_ranks_before_a_far_one(name: str, settings: dict[str, object], shuffle: list[int]) -> None:
    """Near: the true answer is more probable after it. One that was not measured is the farthest."""
    probable = [candidate(f"n{i}", 0.0, logprob=-0.5 - i) for i in range(7)]
    group = [*probable, candidate("unmeasured", 0.0, logprob=None)]
    assert names(select(balancer(name, **settings), [group[i] for i in shuffle])) == ["n0", "n1", "n2"]


@given(positives=COUNT, negatives=COUNT)
def test_positives_first_up_to_ten_then_the_hardest_negatives(positives: int, negatives: int) -> None:
    """The rule of the report's balanced set: questions with 3 positives or more, 10 candidates where there are 10."""
    picked = select(balancer("top_pn", p=10, n=0, min_pos=3), group_of(positives, negatives))
    if positives < 3:
        assert picked == []
        return
    right = min(positives, 10)
    wrong = min(negatives, 10 - right)
    assert names(picked) == [f"p{i}" for i in range(right)] + [f"n{i}" for i in range(wrong)]


@given(positives=COUNT, negatives=COUNT)
def test_the_default_gives_ten_a_question_where_there_are_enough(positives: int, negatives: int) -> None:
    right, wrong = sizes(select(balancer("top_pn"), group_of(positives, negatives)))
    if not positives:
        assert (right, wrong) == (0, 0)
        return
    assert right + wrong == min(10, positives + negatives)
    if positives >= 6 and negatives >= 4:
        assert (right, wrong) == (6, 4)
    else:  # the side that is short is there whole
        assert right == positives or wrong == negatives


@given(p=st.integers(0, 9), n=st.integers(0, 9), positives=COUNT, negatives=COUNT)
def test_without_fill_each_side_has_its_own_limit(p: int, n: int, positives: int, negatives: int) -> None:
    part = balancer("top_pn", p=p, n=n, fill=False, min_pos=0)
    assert sizes(select(part, group_of(positives, negatives))) == (min(p, positives), min(n, negatives))


def test_what_is_made_up_is_the_next_in_rank() -> None:
    assert names(select(balancer("top_pn", p=2, n=2), group_of(1, 5))) == ["p0", "n0", "n1", "n2"]
    assert names(select(balancer("top_pn", p=2, n=2), group_of(5, 1))) == ["p0", "p1", "p2", "n0"]


def test_the_report_s_rule_gives_its_table() -> None:
    """552 of 800 questions, 10 candidates each, 57.48% positive, from 9,594 candidates of which 33.36% are positive.

    How many positives each question had is not known; these counts are one way to its table. At most 28 questions with
    a positive can be among those dropped (docs/design/003).
    """
    before: dict[str, list[Candidate]] = {}
    for positives, negatives, questions in (
        (0, 12, 216),
        (0, 11, 4),
        (1, 11, 26),
        (1, 10, 2),
        (5, 7, 139),
        (6, 6, 413),
    ):
        for _ in range(questions):
            before[f"q{len(before)}"] = group_of(positives, negatives)
    given = summary(before)
    assert (given["questions"], given["candidates_per_question"] * 800) == (800, 9594)
    assert round(100 * given["positive_rate"], 2) == 33.36
    after = {q: select(balancer("top_pn", p=10, n=0, min_pos=3), group) for q, group in before.items()}
    found = summary(after)
    assert (found["questions"], found["candidates_per_question"]) == (552, 10)
    assert all(len(group) in (0, 10) for group in after.values())
    assert round(100 * found["positive_rate"], 2) == 57.48
    wide = {q: select(balancer("top_pn", p=8, n=4, fill=False, min_pos=3), group) for q, group in before.items()}
    assert {len(group) for group in wide.values()} == {0, 9, 10}


def test_a_question_with_too_few_positives_is_dropped_or_kept() -> None:
    group = [candidate("a", 1.0), candidate("b", 0.0)]
    assert select(balancer("top_pn", min_pos=2), group) == []
    assert select(balancer("top_pn"), group[1:]) == []
    assert names(select(balancer("top_pn", min_pos=0), group[1:])) == ["b"]
    assert names(select(balancer("top_pn", min_pos=2, drop=False), group)) == ["a", "b"]
    assert select(balancer("top_pn", min_pos=0), []) == []


@given(positives=COUNT, negatives=COUNT, min_pos=st.integers(0, 5))
def test_balance_without_dropping_drops_no_question(positives: int, negatives: int, min_pos: int) -> None:
    group = group_of(positives, negatives)
    assert bool(select(balancer("top_pn", drop=False, min_pos=min_pos), group)) == bool(group)


def test_correct_is_the_recipes_word_not_the_accuracy() -> None:
    partly = replace(candidate("a", 0.3), correct=True)
    assert select(balancer("top_pn", n=0), [partly]) == [partly]


def test_keep_all_keeps_all_but_what_has_too_few_positives() -> None:
    for group in tiny_groups():
        assert select(balancer("keep_all"), group) == group
    required = balancer("keep_all", min_pos=1)
    assert select(required, group_of(0, 3)) == [] and sizes(select(required, group_of(1, 3))) == (1, 3)


@given(positives=COUNT, negatives=COUNT, order=st.sampled_from(["random", "best"]), seed=st.integers(0, 9))
def test_limit(positives: int, negatives: int, order: str, seed: int) -> None:
    group = group_of(positives, negatives)
    picked = select(balancer("limit", order=order), group, seed)
    assert sizes(picked) == (min(4, positives), min(6, negatives))
    assert select(balancer("limit", order=order, max_pos=None, max_neg=None), group, seed) == sorted(
        group, key=lambda c: (-c.accuracy, -(c.logprob or 0.0))
    )
    assert names(select(balancer("limit", order=order), group[::-1], seed)) == names(picked)


def test_limit_draws_evenly_or_takes_the_best() -> None:
    group = group_of(6, 0)
    assert names(select(balancer("limit", max_pos=2, order="best"), group)) == ["p0", "p1"]
    drawn = Counter(name for seed in range(300) for name in names(select(balancer("limit", max_pos=2), group, seed)))
    assert set(drawn) == set(names(group)) and all(60 <= count <= 140 for count in drawn.values()), drawn


@given(positives=COUNT, negatives=COUNT, low=st.integers(0, 10), width=st.integers(0, 10))
def test_ratio_keeps_as_many_as_the_band_allows(positives: int, negatives: int, low: int, width: int) -> None:
    """Against an exhaustive search, in whole tenths so that no rounding decides."""
    high = min(10, low + width)
    part = balancer("ratio", low=low / 10, high=high / 10, fallback="drop")
    group = group_of(positives, negatives)
    fair = [
        (p, n)
        for p in range(positives + 1)
        for n in range(negatives + 1)
        if p + n and low * (p + n) <= 10 * p <= high * (p + n)
    ]
    picked = select(part, group)
    most = max((p + n for p, n in fair), default=0)
    assert [size for size in fair if sum(size) == most] == ([sizes(picked)] if picked else [])
    assert (part.shortfall(group, picked) == "") == (bool(picked) or not group)
    kept = select(balancer("ratio", low=low / 10, high=high / 10), group)
    assert sizes(kept) == (sizes(picked) if picked else (positives, negatives))


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [(3, 7, (3, 7)), (8, 6, (4, 6)), (2, 10, (2, 4)), (4, 6, (4, 6)), (1, 12, (1, 2)), (5, 1, (5, 1)), (0, 5, (0, 5))],
)
def test_ratio_of_the_report(positives: int, negatives: int, expected: tuple[int, int]) -> None:
    assert sizes(select(balancer("ratio"), group_of(positives, negatives))) == expected


def test_ratio_thins_out_by_seed() -> None:
    group, part = group_of(9, 4), balancer("ratio")
    draws = {tuple(names(select(part, group, seed))) for seed in range(20)}
    assert len(draws) > 5 and all({"n0", "n1", "n2", "n3"} < set(draw) for draw in draws)
    assert names(select(part, group, 3)) == names(select(part, group[::-1], 3))


@given(positives=COUNT, negatives=COUNT, low=st.integers(0, 10), width=st.integers(0, 10))
def test_query_ratio_keeps_questions_whole(positives: int, negatives: int, low: int, width: int) -> None:
    high = min(10, low + width)
    group = group_of(positives, negatives)
    inside = low * len(group) <= 10 * positives <= high * len(group)
    assert select(balancer("query_ratio", low=low / 10, high=high / 10), group) == (group if inside else [])


def test_query_ratio_leaves_out_what_has_no_choice() -> None:
    part = balancer("query_ratio")
    assert [bool(select(part, group_of(*s))) for s in ((0, 12), (1, 11), (11, 1), (12, 0))] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("name", "settings", "positives", "negatives", "says"),
    [
        ("top_pn", {}, 6, 4, ""),
        ("top_pn", {}, 9, 9, ""),
        ("top_pn", {}, 0, 9, "no positive, dropped"),
        ("top_pn", {"min_pos": 3}, 2, 9, "fewer than 3 positives, dropped"),
        ("top_pn", {"min_pos": 3, "drop": False}, 2, 9, "fewer than 3 positives, kept"),
        ("top_pn", {}, 2, 9, "fewer than 6 positives, made up"),
        ("top_pn", {}, 12, 0, "no negative, made up"),
        ("top_pn", {}, 3, 3, "fewer than 10 candidates"),
        ("top_pn", {"fill": False}, 3, 3, "fewer than 6 positives and fewer than 4 negatives"),
        ("keep_all", {}, 0, 3, ""),
        ("keep_all", {"min_pos": 1}, 0, 3, "no positive, dropped"),
        ("limit", {}, 1, 1, ""),
        ("limit", {"max_neg": 0}, 0, 3, "none within the limits, dropped"),
        ("ratio", {}, 5, 9, ""),
        ("ratio", {}, 0, 9, "no positive, kept"),
        ("ratio", {"fallback": "drop"}, 9, 0, "no negative, dropped"),
        ("ratio", {}, 9, 1, "too few to reach the band, kept"),
        ("query_ratio", {}, 5, 5, ""),
        ("query_ratio", {}, 0, 5, "no positive, dropped"),
        ("query_ratio", {}, 5, 0, "no negative, dropped"),
        ("query_ratio", {"low": 0.2}, 1, 9, "share of positives below 0.2, dropped"),
        ("query_ratio", {"high": 0.45}, 5, 5, "share of positives above 0.45, dropped"),
    ],
)
def test_what_could_not_be_met(
    name: str, settings: dict[str, object], positives: int, negatives: int, says: str
) -> None:
    assert shortfall(balancer(name, **settings), positives, negatives) == says


@given(name=st.sampled_from(["top_pn", "keep_all", "limit", "ratio", "query_ratio"]), positives=COUNT, negatives=COUNT)
def test_no_question_is_dropped_without_a_word(name: str, positives: int, negatives: int) -> None:
    part, group = balancer(name), group_of(positives, negatives)
    if group:
        picked = select(part, group)
        assert part.shortfall(group, picked).endswith(", dropped") == (not picked)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("top_pn", "p", -1),
        ("top_pn", "n", -1),
        ("top_pn", "min_pos", -1),
        ("keep_all", "min_pos", -1),
        ("limit", "max_pos", -1),
        ("limit", "order", "worst"),
        ("ratio", "low", -0.1),
        ("ratio", "high", 1.5),
        ("ratio", "fallback", "weep"),
        ("query_ratio", "low", "few"),
    ],
)
def test_settings_are_checked(name: str, key: str, value: object) -> None:
    with pytest.raises(RecipeError, match=f"balancer '{name}' in mine.yaml:3: {key}={value!r}: "):
        CATALOG.build("balancer", name, {key: value}, where="mine.yaml:3")


@pytest.mark.parametrize("name", ["ratio", "query_ratio"])
def test_a_band_has_its_ends_in_order(name: str) -> None:
    with pytest.raises(RecipeError, match=r"low=0.6 must not be above high=0.2"):
        balancer(name, low=0.6, high=0.2)
