"""Pools are drawn for the questions that a recipe asks, in batches, and never again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from leverplus_core.errors import DataError
from leverplus_core.io import read_json
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stages import pool
from leverplus_core.plugins.contracts import Bank, Query
from leverplus_core.recipes.recipe import Recipe

Tiny = Callable[..., Recipe]
FEW = ("scoring.questions=4", "evaluation.sizes=[3]", "evaluation.baseline_questions=2", "sampler.image=0.4")


def _pools(world: Any) -> dict[str, dict[str, list[str]]]:
    [folder] = world.work.glob("stages/pool-*")
    found: dict[str, dict[str, list[str]]] = read_json(folder / "pools.json")
    return found


def test_only_questions_that_are_asked_get_a_pool(tiny: Tiny, world: Any) -> None:
    recipe = tiny(*FEW)
    world.run(recipe, until="pool")
    sets = RunContext(recipe, world.catalog, world.work).question_sets
    asked = {q.id for q in (*sets.searched, *sets.baseline)}
    assert len(asked) == 6
    found = _pools(world)
    assert found["train"].keys() == asked and found["validation"].keys() == {q.id for q in sets.evaluated}
    assert all(len(set(ids)) == 5 for split in found.values() for ids in split.values())


def test_a_recipe_that_asks_more_adds_its_pools_to_the_same_folder(tiny: Tiny, world: Any) -> None:
    """They are those that it draws alone; a recipe that asks fewer finds what it needs."""
    world.run(tiny(*FEW), until="pool")
    few = _pools(world)
    more = tiny(*FEW, "scoring.questions=9", "evaluation.sizes=[8]")
    assert world.run(more, until="pool").stages["pool"] == "done"
    both = _pools(world)
    assert {k: v for k, v in both["train"].items() if k in few["train"]} == few["train"]
    assert (len(few["train"]), len(both["train"]), len(both["validation"])) == (6, 11, 8)
    assert world.provenance("pool")["metadata"]["cost"]["asked"] == 0
    assert world.run(tiny(*FEW), until="pool").stages["pool"] == "reused"
    world.run(more, until="pool", redo=["pool"])
    assert _pools(world) == both


def test_a_batch_makes_no_difference(tiny: Tiny, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run(tiny(*FEW), until="pool")
    whole = _pools(world)
    monkeypatch.setattr(pool, "BATCH", 2)
    world.run(tiny(*FEW), until="pool", redo=["pool"])
    assert _pools(world) == whole


def test_a_sampler_that_draws_too_few_pools_is_named(tiny: Tiny, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny(*FEW)
    sampler = world.catalog.part_class("sampler", "mixed")

    def one(self: Any, queries: Sequence[Query], bank: Bank, rngs: Sequence[np.random.Generator]) -> list[list[int]]:
        return [self.pool(queries[0], bank, rngs[0])]

    monkeypatch.setattr(sampler, "pools", one)
    monkeypatch.setattr(sampler, "pool", lambda *_: [0, 1, 2, 3, 4])
    with pytest.raises(DataError, match=r"sampler 'mixed' drew 1 pools? for 6 questions"):
        world.run(recipe, until="pool")
