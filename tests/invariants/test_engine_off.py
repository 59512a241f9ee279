"""Speed changes no result: a run with every switch of the engine off has the same registry, in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from leverplus_core.pipeline.run import run
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry


def test_with_every_switch_off_all_answers_are_the_same(
    small: Callable[..., Recipe], finished: Any, catalog: Catalog, tmp_path: Path
) -> None:
    engine: Any = catalog.part_class("model", "qwen2_5_vl").model_fields["engine"].annotation
    switches = [name for name, field in engine.model_fields.items() if field.annotation is bool]
    assert len(switches) >= 3
    slow = small(*(f"model.engine.{switch}=false" for switch in switches), "model.engine.tokens_per_batch=300")
    found = run(slow, f"sqlite:///{tmp_path}/r.db", tmp_path / "work", catalog=catalog)
    assert found.calls > 0 and found.run_id != finished.result.run_id

    def answers(url: str, run_id: str) -> list[Any]:
        registry = Registry(url)
        cells = {(cell["method"], cell["shots"]) for cell in registry.cells([run_id])}
        return [row for cell in sorted(cells) for row in registry.cell_predictions(run_id, *cell)]

    own = answers(f"sqlite:///{tmp_path}/r.db", found.run_id)
    assert len(own) == 20 * (1 + 2 * 7) and own == answers(finished.url, finished.result.run_id)
