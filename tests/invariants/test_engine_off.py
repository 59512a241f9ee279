"""Speed changes no result: a run with every piece of the scoring engine off has the same registry, in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from leverplus_core.pipeline.run import run
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry
from leverplus_models.engine.settings import switches


def test_with_every_piece_off_all_answers_are_the_same(
    small: Callable[..., Recipe], finished: tuple[Path, str], tmp_path: Path
) -> None:
    slow = small(*(f"model.engine.{piece}=false" for piece in switches()), "model.engine.tokens_per_batch=300")
    found = run(slow, f"sqlite:///{tmp_path}/r.db", tmp_path / "work")
    assert found.calls > 0 and found.run_id != finished[1]

    def answers(folder: Path, run_id: str) -> list[Any]:
        registry = Registry(f"sqlite:///{folder}/r.db")
        cells = {(cell["method"], cell["shots"]) for cell in registry.cells([run_id])}
        return [row for cell in sorted(cells) for row in registry.predictions(run_id, *cell)]

    own = answers(tmp_path, found.run_id)
    assert len(own) == 20 * (1 + 2 * 7) and own == answers(finished[0], finished[1])
