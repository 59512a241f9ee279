"""The figures of docs/statistics.md at fewer draws; the slow test draws all of them again."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulate_statistics", ROOT / "tools" / "simulate_statistics.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# 300 draws see a true 95% as 91 to 99 nine hundred and ninety-nine times in a thousand.
FEW, LOW, HIGH = 300, 0.91, 0.99


@pytest.mark.parametrize("correlation", [0.3, 0.9])
@pytest.mark.parametrize(("scale", "shape"), [("VQAv2", "low"), ("OK-VQA", "middle")])
def test_scores_are_drawn_as_said(simulation: ModuleType, scale: str, shape: str, correlation: float) -> None:
    setting = simulation.Setting(scale, shape, 20_000, correlation, 0.05)
    ((a, b, _),) = setting.draws(1)
    assert np.corrcoef(a, b)[0, 1] == pytest.approx(correlation, abs=0.02)
    assert (a.mean(), b.mean()) == pytest.approx(setting.means, abs=0.012)
    assert set(a) <= set(simulation.GRADES[scale])


@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize(
    ("scale", "shape", "n"), [("VQAv2", "top", 50), ("OK-VQA", "low", 100), ("VQAv2", "high", 100)]
)
def test_accuracies_are_covered(simulation: ModuleType, scale: str, shape: str, n: int, clustered: bool) -> None:
    setting = simulation.Setting(scale, shape, n, clustered=clustered and shape != "top")
    assert LOW <= simulation.mean_coverage(setting, FEW) <= HIGH


@pytest.mark.parametrize(
    ("scale", "shape", "n", "correlation", "effect", "clustered"),
    [
        ("VQAv2", "middle", 50, 0.0, 0.0, False),
        ("VQAv2", "high", 50, 0.9, 0.05, False),
        ("OK-VQA", "low", 100, 0.9, 0.05, False),
        ("OK-VQA", "middle", 100, 0.6, 0.0, True),
        ("VQAv2", "low", 100, 0.6, 0.05, True),
    ],
)
def test_differences_are_covered(
    simulation: ModuleType, scale: str, shape: str, n: int, correlation: float, effect: float, clustered: bool
) -> None:
    setting = simulation.Setting(scale, shape, n, correlation, effect, clustered)
    assert LOW <= simulation.difference_coverage(setting, FEW) <= HIGH


def test_other_seeds_are_covered(simulation: ModuleType) -> None:
    assert simulation.seeds_coverage(100, (3, 3), 0.03, FEW) >= LOW


def test_a_null_grid_shows_hardly_any_mark(simulation: ModuleType) -> None:
    marks, plain, right = simulation.grid_draws((0.0,) * 4, "OK-VQA", 60)
    assert marks <= 0.15 and right >= 0.85
    assert plain > 0.2  # which is why there is a correction


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_setting_of_the_page_at_2000_draws(simulation: ModuleType) -> None:
    means = {s: simulation.mean_coverage(s, 2000) for s in simulation.mean_settings()}
    differences = {s: simulation.difference_coverage(s, 2000) for s in simulation.difference_settings()}
    outside = {s: c for s, c in {**means, **differences}.items() if not 0.93 <= c <= 0.97}
    assert not outside
    for name, effects, scale in simulation.GRID_SETTINGS:
        marks, _, right = simulation.grid_draws(effects, scale, 2000)
        assert marks <= 0.05 and right >= 0.94, (name, scale)
