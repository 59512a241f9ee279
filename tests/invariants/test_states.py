"""Encode: the model's hidden states are those of the prompts that are named, and stand out from each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from leverplus_core.errors import RecipeError
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.pipeline.run import run
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry
from leverplus_core.scoring.prompt import build_prompt
from leverplus_core.seeding import rng
from leverplus_core.selector.feature_set import FEATURES, FeatureSet

SHOTS = 2
Small = Callable[..., Recipe]


def test_states_follow_the_same_demonstrations(small: Small, catalog: Catalog, tmp_path: Path) -> None:
    recipe = small(f"encoder.hidden_states={SHOTS}", "dataset.validation=8")
    run(recipe, f"sqlite:///{tmp_path}/r.db", tmp_path / "work", until="encode", catalog=catalog)
    context = RunContext(recipe, catalog, tmp_path / "work")
    [file] = tmp_path.glob(f"work/stages/encode-*/{FEATURES}")
    features, dataset = FeatureSet.read(file), context.dataset
    bank, questions = dataset.demonstrations(), dataset.questions("train")
    order = [bank[i] for i in rng(0, "demonstrations of states").permutation(len(bank))]

    def state_of(question: int) -> np.ndarray:
        asked = questions[question]
        shown = list(islice((d for d in order if d.image != asked.image), SHOTS))  # its own image is never shown
        return np.asarray(context.model.last_hidden_state([build_prompt(shown, asked, recipe.prompt)])[0])

    raw = np.stack([state_of(i) for i in range(len(questions))])  # each demonstration is one of these questions
    at = {q.id: i for i, q in enumerate(questions)}
    of_bank = raw[[at[d.id] for d in bank]]
    expected = (raw - of_bank.mean(0)) / of_bank.std(0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = features.of_questions([q.id for q in questions]).state
    assert found is not None and features.demonstrations.state is not None
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(features.demonstrations.state, expected[[at[d.id] for d in bank]], atol=1e-3)
    # They are part of what the selector sees, and of the fingerprint.
    others = [
        Pipeline(RunContext(r, catalog)).fingerprints["encode"]
        for r in (small("dataset.validation=8"), small("encoder.hidden_states=1", "dataset.validation=8"), recipe)
    ]
    assert len(set(others)) == 3 and file.parent.name == f"encode-{others[2]}"


def test_a_run_with_states_and_prepended_demonstrations(small: Small, catalog: Catalog, tmp_path: Path) -> None:
    few = ("scoring.questions=6", "evaluation.sizes=[4]", "dataset.validation=8", "training.grpo.epochs=0")
    baselines = "evaluation.baselines=[text_knn, state_knn]"
    recipe = small("encoder.hidden_states=1", "selector={name: pairwise}", "prompt.order=prepend", baselines, *few)
    with Registry(f"sqlite:///{tmp_path}/r.db") as registry:
        found = run(recipe, registry, tmp_path / "work", catalog=catalog)
        assert found.stages["evaluate"] == "done"
        cost = {row["name"]: row["metadata"]["cost"] for row in registry.stages(found.run_id)}
        prompts = registry.method_prompts(found.run_id)
    # A state of each of 40 train and 8 validation questions; they count for all that read them.
    assert cost["encode"]["prompts"] == cost["encode"]["asked"] == 40 + 8
    assert prompts["text_knn"] == 0 and prompts["state_knn"] == 40 + 8
    assert prompts["sft"] == 40 + 8 + cost["beam_search"]["asked"] + cost["sft"]["asked"]


def test_a_sampler_that_draws_by_states_without_any_is_refused_when_the_recipe_is_composed(
    small: Small, catalog: Catalog
) -> None:
    settings = "sampler={name: mixed, k: 6, text: 0.25, image: 0.25, state: 0.5}"
    with pytest.raises(RecipeError, match="reads hidden states, and there are none"):
        RunContext(small(settings), catalog)
    RunContext(small(settings, "encoder.hidden_states=1"), catalog)
