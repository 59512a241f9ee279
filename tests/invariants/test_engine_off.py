"""Speed changes no result: a run with every switch of the engine off has the same registry, in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from leverplus_core.pipeline.run import run
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry

FEW = ("scoring.questions=6", "evaluation.sizes=[6]")


def test_with_every_switch_off_all_answers_are_the_same(
    small: Callable[..., Recipe], catalog: Catalog, tmp_path: Path
) -> None:
    engine: Any = catalog.part_class("model", "qwen2_5_vl").model_fields["engine"].annotation
    switches = [name for name, field in engine.model_fields.items() if field.annotation is bool]
    assert len(switches) >= 3
    off = (*(f"model.engine.{switch}=false" for switch in switches), "model.engine.tokens_per_batch=300")
    registry = Registry(f"sqlite:///{tmp_path}/r.db")
    slow = run(small(*FEW, *off), registry, tmp_path / "slow", catalog=catalog)
    fast = run(small(*FEW), registry, tmp_path / "fast", catalog=catalog)
    assert slow.calls == fast.calls > 0 and slow.run_id != fast.run_id

    def answers(run_id: str) -> list[Any]:
        cells = {(cell["method"], cell["shots"]) for cell in registry.cells([run_id])}
        return [row for cell in sorted(cells) for row in registry.predictions(run_id, *cell)]

    assert len(answers(slow.run_id)) == 6 * (1 + 2 * 7) and answers(slow.run_id) == answers(fast.run_id)
