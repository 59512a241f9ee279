"""The encode stage: the VLM's states are those of the prompts they are said to be of, and stand out from each other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from leverplus_core.errors import PluginError
from leverplus_core.pipeline.run import compose, run
from leverplus_core.pipeline.stages import EncodedData
from leverplus_core.pipeline.workspace import Workspace
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.scoring.prompt import build_prompt
from leverplus_core.seeding import rng

SHOTS = 2


def test_states_follow_the_same_demonstrations(small: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = small(f"encoder.hidden_states={SHOTS}")
    run(recipe, f"sqlite:///{tmp_path}/r.db", tmp_path / "work", until="encode")
    parts = compose(recipe, Workspace(tmp_path / "work"))
    [folder] = (tmp_path / "work" / "stages").iterdir()
    encoded, dataset = EncodedData.load(folder), parts.dataset
    bank, questions = dataset.demonstrations(), dataset.questions("train")
    order = [bank[i] for i in rng(0, "demonstrations of states").permutation(len(bank))]

    def state_of(question: int) -> np.ndarray:
        asked = questions[question]
        shown = list(islice((d for d in order if d.image != asked.image), SHOTS))  # its own picture is never shown
        return np.asarray(parts.model.last_hidden_state([build_prompt(shown, asked, recipe.prompt)])[0])

    raw = np.stack([state_of(i) for i in range(len(questions))])  # each demonstration is one of these questions
    at = {q.id: i for i, q in enumerate(questions)}
    of_bank = raw[[at[d.id] for d in bank]]
    expected = (raw - of_bank.mean(0)) / of_bank.std(0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert encoded.questions["train"].state is not None and encoded.bank.state is not None
    np.testing.assert_allclose(encoded.questions["train"].state, expected, atol=1e-3)
    np.testing.assert_allclose(encoded.bank.state, expected[[at[d.id] for d in bank]], atol=1e-3)
    # They are part of what the selector sees, and of the fingerprint.
    others = [
        compose(small(f"encoder.hidden_states={n}"), Workspace(tmp_path)).fingerprints["encode"] for n in (1, SHOTS)
    ]
    assert len({*others, compose(small(), Workspace(tmp_path)).fingerprints["encode"]}) == 3
    assert others[1] == parts.fingerprints["encode"]


def test_a_run_with_states_and_prepended_demonstrations(small: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = small(
        "encoder.hidden_states=1", "selector={name: pairwise}", "prompt.order=prepend", "training.grpo.epochs=0"
    )
    found = run(recipe, f"sqlite:///{tmp_path}/r.db", tmp_path / "work")
    assert found.stages["evaluate"] == "done"


def test_a_model_without_states_is_named(catalog: Catalog) -> None:
    from leverplus_core.plugins.contracts import Model

    with pytest.raises(PluginError, match="shows no states"):
        Model.last_hidden_state(catalog.build("model", "qwen2_5_vl", {"path": "demo"}), [])
