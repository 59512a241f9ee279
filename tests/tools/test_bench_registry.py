"""A million predictions: leaderboard, comparison and query in under a second of work each, a report in five."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from leverplus_core.registry.registry import Registry


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    file = Path(__file__).parents[2] / "tools" / "bench_registry.py"
    spec = importlib.util.spec_from_file_location("bench_registry", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_registry"] = module
    spec.loader.exec_module(module)
    return module


def test_what_is_built_in_bulk_is_what_evaluation_writes(bench: ModuleType, tmp_path: Path) -> None:
    """The same rows through the registry give the same cells, samples and scores."""
    assert bench.build(tmp_path / "bulk.db", 1, 2, (1, 2), 60, (20, 60)) == 240
    with Registry(f"sqlite:///{tmp_path / 'bulk.db'}") as bulk, Registry(f"sqlite:///{tmp_path / 'own.db'}") as own:
        run = bench.record(0)
        own.begin_run(run)
        own.finish_run(run.id, "done")
        for method in ("method0", "method1"):
            for shots in (1, 2):
                own.record_cell_predictions(
                    run.id, method, shots, bulk.cell_predictions(run.id, method, shots), [20, 60]
                )
        assert own.cells() == bulk.cells() and len(own.cells()) == 8


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("shape", range(2))
def test_a_million_predictions_are_read_in_time(bench: ModuleType, tmp_path: Path, shape: int) -> None:
    """Seconds of the processor, so that what else the machine does is not counted."""
    sizes = list(bench.SHAPES.values())[shape]
    assert bench.build(tmp_path / "r.db", *sizes) > 990_000
    for name, (work, _) in bench.commands(tmp_path / "r.db", sizes[0]).items():
        assert bench.least_seconds(work, 2)[1] < bench.LIMIT_S[name], name
