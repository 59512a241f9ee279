"""Registries to report on, written through `Registry` as a run writes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leverplus_core.records import Prediction
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_formats.table import TableImporter

RECIPE = {
    "name": "demo", "seed": 0, "task": "vqa", "dataset": {"name": "demo_world", "train": 300},
    "balancer": {"name": "top_pn", "p": 8}, "reward": {"name": "separated"}, "evaluation": {"shots": [1, 2]},
}  # fmt: skip
BALANCING = {
    "before": {"questions": 60, "candidates": 900, "candidates_per_question": 15.0, "positive_rate": 0.6},
    "after": {"questions": 50, "candidates": 425, "candidates_per_question": 8.5, "positive_rate": 0.8},
    "change": {"questions": -10, "candidates": -475, "candidates_per_question": -6.5, "positive_rate": 0.2},
    "shortfall": {"no negative": 30},
}
TABLE = """| Sample size | Shot | Baseline | Merged | Balanced |
|---|---|---|---|---|
| 100 | 1 | 64.20 | 64.20 | **65.00** |
| 100 | 2 | 61.50 | 63.10 | 62.00 |
| 800 | 1 | 49.99 | 50.01 | 50.150 |
| 800 | 2 | 47.70 | 47.69 | 47.70 |
"""
Scores = Mapping[tuple[str, int], Sequence[float]]
Write = Callable[..., str]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(f"sqlite:///{tmp_path / 'r.db'}")


@pytest.fixture(scope="session")
def write() -> Write:
    """Record a finished run: scores of (method, shots) by question, and what its stages say."""

    def write(
        registry: Registry,
        id: str,
        scores: Scores,
        sizes: Sequence[int],
        seed: int = 0,
        name: str | None = None,
        reward: str = "separated",
        sweep: str | None = None,
        arm: Mapping[str, Any] | None = None,
        note: str = "",
        status: str = "done",
        questions: str | Sequence[str] = "q",
        model: str = "qwen",
        evaluation: Mapping[str, Any] | None = None,
    ) -> str:
        recipe = {**RECIPE, "name": name or id, "seed": seed, "reward": {"name": reward}}
        recipe |= {"evaluation": evaluation} if evaluation else {}
        run = RunRecord(
            id, name or id, f"f-{id}", "demo_world", model, seed, recipe=recipe, dataset_fingerprint="w", sweep=sweep,
            arm=arm, note=note, git={"commit": "0123456789abcdef"},
        )  # fmt: skip
        registry.begin_run(run)
        for (method, shots), values in scores.items():
            ids = [f"{questions}{i}" for i in range(len(values))] if isinstance(questions, str) else questions
            rows = [
                (i, Prediction(method, shots, q, q, (), "", "", float(v)))
                for i, (q, v) in enumerate(zip(ids, values, strict=True))
            ]
            registry.record_cell_predictions(id, method, shots, rows, sizes)
        cost = {"cost": {"seconds": 2.0, "prompts": 10}}
        registry.record_stage(id, "balance", "b1", "done", 1.0, "", reused=False, metadata={**BALANCING, **cost})
        registry.record_stage(id, "rce", f"r-{reward}-{seed}", "done", 3.0, "", reused=False, metadata=cost)
        registry.record_stage(id, "evaluate", "e", "done", 4.0, "", reused=False, metadata=cost)
        registry.record_curve(id, "rce", [(e, {"loss": 1 / e, "accuracy": e / 4 + seed}) for e in (1, 2, 3)])
        registry.finish_run(id, status)
        return id

    return write


SEEDS = (0, 1, 2, 3)
GRADES = np.array([0, 0.3, 0.6, 1.0])


@pytest.fixture(scope="session")
def swept_file(tmp_path_factory: pytest.TempPathFactory, write: Write) -> Path:
    """A sweep of three rewards by four seeds: `mixed` is far above `separated`, `hard` differs by noise."""
    file = tmp_path_factory.mktemp("swept") / "r.db"
    registry = Registry(f"sqlite:///{file}")
    chance = np.random.default_rng(5)
    n = 60
    base = {shots: chance.choice(GRADES, n) for shots in (1, 2)}
    fixed = {("random", s): chance.choice(GRADES, n) for s in (1, 2)}
    fixed |= {("oracle", s): np.maximum(base[s], fixed["random", s]) for s in (1, 2)}
    for seed in SEEDS:
        for reward, lift in (("separated", 0.0), ("mixed", 0.4), ("hard", 0.0)):
            moved = {}
            for shots in (1, 2):
                swapped = chance.random(n) < (0.0 if reward == "separated" else 0.05)
                values = np.where(swapped, chance.choice(GRADES, n), base[shots])
                moved["rce", shots] = np.where(chance.random(n) < lift, 1.0, values)
            run = f"{reward}{seed}"
            write(
                registry, run, {**fixed, **moved}, [30, 60], seed, f"sw (reward={reward}, seed={seed})", reward, "sw",
                {"reward": reward}, note="a small world",
            )  # fmt: skip
    registry.close()
    return file


@pytest.fixture(scope="session")
def copy_registry() -> Callable[[Path, Path], None]:
    """Copy a registry with all that its write-ahead log holds, which a copy of the file alone would lose."""

    def copy(source: Path, target: Path) -> None:
        with closing(sqlite3.connect(source)) as connection:
            connection.execute("VACUUM INTO ?", (str(target),))

    return copy


@pytest.fixture
def swept(swept_file: Path, copy_registry: Callable[[Path, Path], None], tmp_path: Path) -> Registry:
    copy_registry(swept_file, tmp_path / "r.db")
    return Registry(f"sqlite:///{tmp_path / 'r.db'}")


@pytest.fixture
def table(registry: Registry, tmp_path: Path) -> Registry:
    (tmp_path / "t.md").write_text(TABLE, encoding="utf-8")
    registry.record_published("paper", TableImporter().read(tmp_path / "t.md"))
    return registry
