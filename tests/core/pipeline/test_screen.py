"""A screened search measures a part of each pool; what learns from it chooses from all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leverplus_core.errors import RecipeError
from leverplus_core.io import read_json
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.plan import plan
from leverplus_core.pipeline.pools import POOLS
from leverplus_core.pipeline.stages.beam_search import read_sequences
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.selector.feature_set import FEATURES, FeatureSet

Tiny = Callable[..., Recipe]
SCREEN = "scoring.beam_search={num_beams: 2, shots: 2, screen: 3}"


def _folder(world: Any, stage: str) -> Path:
    [folder] = world.work.glob(f"stages/{stage}-*")
    return Path(folder)


def test_only_what_is_nearest_by_text_and_image_is_searched(tiny: Tiny, world: Any) -> None:
    world.run(tiny(SCREEN), until="beam_search")
    features = FeatureSet.read(_folder(world, "encode") / FEATURES)
    pools = read_json(_folder(world, "pool") / POOLS)["train"]
    row, asked = (
        {name: i for i, name in enumerate(ids)} for ids in (features.demonstration_ids, features.question_ids)
    )
    sequences, shown = read_sequences(_folder(world, "beam_search")), 0
    for question, kept in sequences.items():
        rows = [row[d] for d in pools[question]]
        near = np.zeros(len(rows))
        for block in ("image", "text"):
            bank, own = getattr(features.demonstrations, block), getattr(features.questions, block)
            cosines = bank[rows] @ own[asked[question]]
            near += (cosines - cosines.mean()) / max(cosines.std(), 1e-6)
        least = np.sort(near)[-3]
        used = {d for sequence in kept for d in sequence.demonstrations}
        assert all(near[pools[question].index(d)] >= least - 1e-4 for d in used)
        shown += len(used)
    assert shown > 2 * len(sequences), "two sequences of two, of three demonstrations"


def test_what_follows_has_the_whole_pool_and_asks_no_more_than_planned(tiny: Tiny, world: Any) -> None:
    recipe = tiny(SCREEN)
    found = {stage.stage: stage.prompts for stage in plan(RunContext(recipe, world.catalog)).stages}
    for stage in ("beam_search", "propose"):
        asked = world.run(recipe, until=stage).calls
        assert 0.5 * found[stage] <= asked <= found[stage]
    assert all(len(pool) == 5 for pool in read_json(_folder(world, "pool") / POOLS)["train"].values())


def test_a_screen_below_the_number_of_shots_is_refused(tiny: Tiny) -> None:
    with pytest.raises(RecipeError, match="screen 1 leaves fewer demonstrations than the 2 shots"):
        tiny("scoring.beam_search={num_beams: 2, shots: 2, screen: 1}")
