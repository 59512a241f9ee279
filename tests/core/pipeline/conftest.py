"""A tiny world of `tiny_parts.py`, and one finished run of it for tests that compare with it or continue it."""

from __future__ import annotations

import importlib
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.io import read_json
from leverplus_core.pipeline.run import RunResult, run
from leverplus_core.pipeline.workspace import PROVENANCE
from leverplus_core.plugins.manager import Catalog
from leverplus_core.plugins.source import code_hash
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry

TINY_PARTS = Path(__file__).parent / "tiny_parts.py"
PARTS = {"dataset": "tiny", "model": "tiny", "encoder": "tiny", "sampler": "mixed:k=5", "balancer": "keep_all"}
SETTINGS = [
    "threads=1", "selector.width=16", "scoring.questions=20", "scoring.beam_search={num_beams: 2, shots: 2}",
    "scoring.candidates={shots: [1, 2], num_beams: 1, samples: {1.0: 1}, retrieval: 1, random: 1}",
    "scoring.candidates.questions=null", "training.sft.epochs=1", "training.rce.epochs=2", "training.grpo.epochs=1",
    "training.mrt.epochs=0", "evaluation.shots=[1, 2]", "evaluation.sizes=[5, 10]", "evaluation.ablations=[]",
    "evaluation.baselines=[zero_shot, random, text_knn, {name: oracle, num_beams: 2, expand_top_k: 3}]",
]  # fmt: skip
Tiny = Callable[..., Recipe]


@dataclass(frozen=True)
class World:
    """A folder with a registry and a workspace."""

    folder: Path
    catalog: Catalog

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/r.db"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def run(self, recipe: Recipe, registry: str | None = None, **more: Any) -> RunResult:
        return run(recipe, registry or self.url, self.work, catalog=self.catalog, **more)

    def results(self, run_id: str, registry: str | None = None) -> dict[str, list[Any]]:
        """All that an experiment has found: predictions, cells, curves and validation questions."""
        tables = {
            "predictions": "method, shots, question_id, position, demonstrations, raw_text, prediction, accuracy",
            "cells": "method, shots, n, accuracy, ci_low, ci_high, sample",
            "curves": "stage, step, metric, value",
            "validation_questions": "stage, question_id",
        }
        with Registry(registry or self.url) as store:
            return {
                table: store.sql(f"SELECT {columns} FROM {table} WHERE run_id = '{run_id}' ORDER BY {columns}")[1]
                for table, columns in tables.items()
            }

    def provenance(self, stage: str) -> dict[str, Any]:
        """That of the only result of a stage."""
        [folder] = self.work.glob(f"stages/{stage}-*")
        return dict(read_json(folder / PROVENANCE))

    def copy(self, folder: Path) -> World:
        """The same files in another folder; databases with what stands in their write-ahead logs."""
        databases = ("*.db", "*.sqlite")
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("*.db*", "*.sqlite*"), dirs_exist_ok=True)
        for file in (file for pattern in databases for file in self.folder.rglob(pattern)):
            with sqlite3.connect(file) as c:
                c.execute("VACUUM INTO ?", (str(folder / file.relative_to(self.folder)),))
        return World(folder, self.catalog)


@pytest.fixture(scope="session")
def tiny_catalog() -> Iterator[Catalog]:
    yield Catalog.load([TINY_PARTS], disabled="")
    del sys.modules[TINY_PARTS.stem]


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """The recipe of the tiny world, with more overrides; parts by keyword."""
    return lambda *more, **parts: Recipe.load("demo", [*SETTINGS, *more], {**PARTS, **parts})


@pytest.fixture(scope="session")
def _finished(tiny: Tiny, tiny_catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> tuple[World, RunResult]:
    world = World(tmp_path_factory.mktemp("tiny"), tiny_catalog)
    return world, world.run(tiny())


@pytest.fixture
def finished(_finished: tuple[World, RunResult], tmp_path: Path) -> tuple[World, RunResult]:
    """A copy, to do with as one likes, of a world whose run nothing disturbed; and what that run returned."""
    world, result = _finished
    return world.copy(tmp_path / "finished"), result


@pytest.fixture
def world(tiny_catalog: Catalog, tmp_path: Path) -> World:
    """A world in which nothing has been run."""
    return World(tmp_path, tiny_catalog)


@pytest.fixture
def new_process(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """As in a new process: no module below `tmp_path` is imported, and no hash of its code is known."""

    def forget() -> None:
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
                del sys.modules[name]
        code_hash.cache_clear()
        importlib.invalidate_caches()

    yield forget
    forget()
