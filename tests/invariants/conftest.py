"""One small run that nothing disturbed, for every test that compares with it or goes on from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leverplus_core.pipeline.run import run
from leverplus_core.recipes.recipe import Recipe

SMALL = [
    "dataset.train=60", "dataset.validation=24", "sampler.k=6", "scoring.questions=30",
    "scoring.beam_search.num_beams=2", "scoring.beam_search.expand_top_k=3", "scoring.candidates.num_beams=2", "scoring.candidates.retrieval=2",
    "training.sft.epochs=2", "training.rce.epochs=2", "training.grpo.epochs=1", "selector.width=32",
    "evaluation.shots=[1, 2]", "evaluation.sizes=[10, 20]", "evaluation.oracle.num_beams=2", "evaluation.oracle.expand_top_k=3",
    "balancer={name: keep_all}", "threads=1",
]  # fmt: skip


@pytest.fixture(scope="session")
def small_settings() -> list[str]:
    return SMALL


@pytest.fixture(scope="session")
def small() -> Callable[..., Recipe]:
    """The small recipe, with more overrides."""
    return lambda *more: Recipe.load("demo", [*SMALL, *more])


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Its folder and its run's id."""
    folder = tmp_path_factory.mktemp("run")
    result = run(Recipe.load("demo", SMALL), f"sqlite:///{folder}/r.db", folder / "work")
    assert result.calls > 0 and set(result.stages.values()) == {"done", "off"}
    return folder, result.run_id
