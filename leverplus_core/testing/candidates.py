"""Checks of the parts that draw pools and weigh candidates: samplers, balancers, rewards."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from leverplus_core.errors import DataError
from leverplus_core.plugins.contracts import (
    MEASUREMENTS,
    Balancer,
    Bank,
    Features,
    Reward,
    Sampler,
    allowed,
)
from leverplus_core.testing.parts import check_part, raises, returns
from leverplus_core.testing.records import (
    tiny_bank,
    tiny_groups,
    without,
)

if TYPE_CHECKING:
    pass


def check_sampler(part: Sampler) -> None:
    """`k` distinct rows, never the question nor its image, from `rng` alone; DataError when there are too few."""
    check_part(part)
    small = part.model_copy(update={"k": 5})
    query, bank = tiny_bank()
    fair = {int(row) for row in allowed(query, bank)}
    np.random.seed(1)
    first = small.pool(query, bank, np.random.default_rng(1))
    assert len(first) == 5 and all(isinstance(row, int) for row in first), f"a pool is k row numbers, not {first}"
    assert len(set(first)) == 5, f"a pool has no repeats: {first}"
    assert set(first) <= fair, f"a pool never has the question itself nor its image: {sorted(set(first) - fair)}"
    returns("sampler", small, "pool", first, query=query, bank=bank)
    returns("sampler", small, "blocks", small.blocks())
    np.random.seed(7)  # a part that reads this global state would now draw others
    assert first == small.pool(query, bank, np.random.default_rng(1)), "a pool depends on rng alone"
    several = small.pools([query, query], bank, [np.random.default_rng(seed) for seed in (1, 3)])
    alone = [first, small.pool(query, bank, np.random.default_rng(3))]
    assert [list(rows) for rows in several] == alone, "`pools` draws what `pool` draws for each"
    whole = part.model_copy(update={"k": len(fair)}).pool(query, bank, np.random.default_rng(2))
    assert set(whole) == fair, "with k equal to what is allowed, the pool is all that is allowed"
    if not small.blocks():
        blind = Bank(bank.demonstrations, Features(*(np.zeros((0, 0), np.float32),) * 2))
        assert first == small.pool(query, blind, np.random.default_rng(1)), "blocks() is empty, yet features count"
    greedy = part.model_copy(update={"k": len(fair) + 1})
    empty = Bank([], Features(*(np.zeros((0, 8), np.float32),) * 4))
    for what, sampler, source in (("fewer than k rows", greedy, bank), ("an empty bank", small, empty)):
        assert raises(DataError, partial(sampler.pool, query, source, np.random.default_rng(1))), (
            f"{what} must raise DataError"
        )


def check_balancer(part: Balancer) -> None:
    """A subset of the group without repeats, from `rng` alone, with or without measurements; `shortfall` is a line."""
    check_part(part)
    groups = tiny_groups()
    unmeasured = [without(candidate, *MEASUREMENTS) for candidate in groups[2]]
    for group in (*groups, unmeasured):
        np.random.seed(1)
        picked = part.select(group, np.random.default_rng(1))
        assert all(candidate in group for candidate in picked), "only candidates of the group can be selected"
        assert len({c.demonstrations for c in picked}) == len(picked), "a candidate is selected once"
        returns("balancer", part, "select", picked, group=group)
        np.random.seed(7)  # a part that reads this global state would now select others
        assert picked == part.select(group, np.random.default_rng(1)), "the same rng must select the same candidates"
        shortfall: object = part.shortfall(group, picked)
        assert isinstance(shortfall, str), f"shortfall() is text, not {shortfall!r}"
        assert shortfall == " ".join(shortfall.split()), f"shortfall() is one line, not {shortfall!r}"
    needed = part.needs()
    assert needed <= MEASUREMENTS, f"needs() has {sorted(needed - MEASUREMENTS)}, which are no measurements"


def check_reward(part: Reward) -> None:
    """Finite, one per candidate in order, independent of the group's order; better in everything is never less.

    A measurement that is None and read raises DataError that names it and the question; nothing else is raised. One
    that `needs()` does not name is not read.
    """
    check_part(part)
    groups = tiny_groups()[1:]  # no question without candidates is ever rewarded
    for group in groups:
        rewards = part.compute(group)
        assert len(rewards) == len(group), f"one reward per candidate: {len(rewards)} for {len(group)}"
        assert all(math.isfinite(reward) for reward in rewards), f"rewards must be finite: {rewards}"
        returns("reward", part, "compute", rewards, group=group)
        order = np.random.default_rng(3).permutation(len(group))
        shuffled = part.compute([group[i] for i in order])
        expected = [rewards[i] for i in order]
        assert np.allclose(shuffled, expected, rtol=0, atol=1e-9), "the group's order must not matter"
    worse = replace(
        tiny_groups()[4][0], accuracy=0.0, correct=False, logprob=-3.0, info_score=-0.1, text_similarity=0.1
    )
    better = replace(
        worse, demonstrations=("d9",), accuracy=1.0, correct=True, logprob=-0.1, info_score=0.3, text_similarity=1.0
    )
    low, high = part.compute([worse, better])
    assert high >= low, "higher is better: a candidate better in every measurement got less"
    for name in sorted(MEASUREMENTS):
        for group in groups:
            blank = [without(candidate, name) for candidate in group]
            try:
                rewards = part.compute(blank)
            except DataError as error:
                named = name in str(error) and group[0].question_id in str(error)
                assert named, f"the error must name the question and {name}: {error}"
            except Exception as error:
                raise AssertionError(f"{name} is None: {error!r} rather than a DataError") from error
            else:
                assert rewards == part.compute(group), (
                    f"{name} is read: None must raise a DataError, not count as a value"
                )
    needed = part.needs()
    assert needed <= MEASUREMENTS, f"needs() has {sorted(needed - MEASUREMENTS)}, which are no measurements"
    for group in groups:
        bare = [without(candidate, *(MEASUREMENTS - needed)) for candidate in group]
        try:
            assert part.compute(bare) == part.compute(group), "a measurement that needs() does not name is read"
        except DataError as error:
            raise AssertionError(f"a measurement that needs() does not name is read: {error}") from error
