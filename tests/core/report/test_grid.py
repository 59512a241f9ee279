from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leverplus_core.errors import RegistryError
from leverplus_core.records import Prediction
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.report.comparison import compare_rows
from leverplus_core.report.grid import COMPARED, Arm, grid_rows
from leverplus_core.statistics import accuracy_interval, paired_difference

RUN = RunRecord("aaa111", "one", "f", "vqa_json", "m", 0, recipe={"dataset": {"name": "vqa_json"}})
SIZES = [20, 60]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(f"sqlite:///{tmp_path / 'r.db'}")


def record(
    registry: Registry, run: RunRecord, method: str, shots: int, scores: np.ndarray, ids: list[str] | None = None
) -> None:
    names = ids or [f"q{i}" for i in range(len(scores))]
    rows = [
        (i, Prediction(method, shots, q, f"image {int(q[1:]) // 2}", (), "", "", float(score)))
        for i, (q, score) in enumerate(zip(names, scores, strict=True))
    ]
    registry.record_cell_predictions(run.id, method, shots, rows, SIZES)


@pytest.fixture
def grid(registry: Registry) -> Registry:
    """A baseline of one run, an arm of one run that is far better, and an arm of three that is no better."""
    rng = np.random.default_rng(0)
    runs = [RUN, *(replace(RUN, id=f"bbb{s}", name=f"seed {s}", seed=s) for s in range(3))]
    for run in runs:
        registry.begin_run(run)
    for shots in (1, 2):
        base = rng.choice([0, 0.6, 1], 60, p=[0.6, 0.2, 0.2])
        record(registry, RUN, "random", shots, base)
        record(registry, RUN, "rce", shots, np.where(rng.random(60) < 0.7, 1.0, base))
        for run in runs[1:]:
            record(registry, run, "rce", shots, np.where(rng.random(60) < 0.3, rng.choice([0, 0.6, 1], 60), base))
    record(registry, RUN, "zero_shot", 0, rng.choice([0, 0.6, 1], 60))
    return registry


GOOD, SEEDS = Arm("good", ("one:rce",)), Arm("seeds", tuple(f"seed {s}:rce" for s in range(3)))
BASE = Arm("base", ("one:random",))


def test_a_grid_has_every_cell_of_every_arm(grid: Registry) -> None:
    rows = grid_rows(grid, [GOOD, SEEDS], BASE)
    cells = [(s, n) for s in (1, 2) for n in SIZES]
    assert [(r["arm"], r["shots"], r["n"]) for r in rows] == [
        (arm, s, n) for arm in ("base", "good", "seeds") for s, n in cells
    ]
    assert all(set(rows[0]) == set(row) for row in rows)
    assert all(row["comparisons"] == 8 for row in rows)
    assert all(row[key] is None for row in rows[:4] for key in COMPARED)
    assert [(r["seeds"], r["baseline_seeds"], r["questions"], r["left_out"]) for r in rows[4::4]] == [
        (1, 1, 20, 0), (3, 1, 20, 0),
    ]  # fmt: skip
    # Ten images show nothing once eight comparisons were made; thirty do.
    assert [r["mark"] for r in rows[5:8:2]] == ["better"] * 2
    assert [r["mark"] for r in rows[8:]] == ["no difference seen"] * 4
    for row in rows[4:]:
        assert (row["mark"] == "better") == (row["corrected_low"] > 0) == (row["p_holm"] <= 0.05)
        assert row["corrected_low"] <= row["delta_low"] <= row["delta"] <= row["delta_high"] <= row["corrected_high"]
        assert row["wins"] + row["losses"] + row["ties"] == row["questions"]
        assert row["delta"] == pytest.approx(row["accuracy"] - row["baseline_accuracy"])


def test_a_cell_is_what_statistics_says_of_its_scores(grid: Registry) -> None:
    row = next(r for r in grid_rows(grid, [SEEDS], BASE) if r["arm"] == "seeds" and (r["shots"], r["n"]) == (2, 60))
    scores = np.stack([grid.scores(f"bbb{s}", "rce", 2).accuracy for s in range(3)])
    base, images = grid.scores("aaa111", "random", 2).accuracy, [i // 2 for i in range(60)]
    wanted, own = paired_difference(scores, base, images), accuracy_interval(scores, images)
    assert (row["delta"], row["delta_low"], row["delta_high"]) == pytest.approx((wanted.delta, wanted.low, wanted.high))
    assert row["p_value"] == wanted.p_value
    assert (row["accuracy"], row["ci_low"], row["ci_high"]) == pytest.approx((own.mean, own.low, own.high))


def test_one_arm_of_one_run_is_a_comparison(grid: Registry) -> None:
    rows = [r for r in grid_rows(grid, [GOOD], BASE) if r["baseline"]]
    sizes = sorted({r["n"] for r in rows})
    for ours, theirs in zip(rows, compare_rows(grid, "one:rce", "one:random", n=sizes), strict=True):
        for key, other in (("delta", "delta"), ("corrected_low", "corrected_low"), ("p_holm", "p_holm"), ("n", "n"),
                           ("detectable", "detectable"), ("accuracy", "a"), ("baseline_accuracy", "b")):  # fmt: skip
            assert ours[key] == pytest.approx(theirs[other])


def test_a_method_is_not_compared_with_itself(grid: Registry) -> None:
    rows = grid_rows(grid, [BASE, GOOD, Arm("again", ("aaa111:random",))], BASE)
    assert [r["arm"] for r in rows] == ["base"] * 4 + ["good"] * 4


def test_no_shots_stand_against_every_number_of_shots(grid: Registry) -> None:
    rows = grid_rows(grid, [GOOD], Arm("none", ("one:zero_shot",)))
    assert [r["shots"] for r in rows] == [0, 0, 1, 1, 2, 2]


def test_other_samples_are_intersected_and_it_says_so(grid: Registry) -> None:
    other = replace(RUN, id="ccc", name="reordered", seed=9)
    grid.begin_run(other)
    ids = [f"q{i}" for i in range(59, 9, -1)] + [f"q{i}" for i in range(100, 110)]  # 50 of the 60, backwards
    record(grid, other, "rce", 1, np.ones(60), ids)
    rows = [r for r in grid_rows(grid, [Arm("other", ("reordered:rce",))], BASE) if r["baseline"]]
    # Its first 20 are q59 .. q40, and the first 20 of the baseline are q0 .. q19: none is in both.
    assert [(r["n"], r["questions"], r["left_out"]) for r in rows] == [(60, 50, 10)]
    base = grid.scores("aaa111", "random", 1).accuracy
    assert rows[0]["delta"] == pytest.approx(1 - base[10:].mean())


def test_what_makes_no_grid_is_one_line(grid: Registry) -> None:
    elsewhere = replace(RUN, id="ddd", name="elsewhere", dataset="demo_world")
    task = replace(RUN, id="eee", name="captions", recipe={**RUN.recipe, "task": "caption"})
    split = replace(RUN, id="fff", name="split", recipe={**RUN.recipe, "evaluation": {"split": "test"}})
    apart = replace(RUN, id="ggg", name="apart")
    for run in (elsewhere, task, split, apart):
        grid.begin_run(run)
        record(grid, run, "rce", 1, np.ones(60), [f"q{i}" for i in range(1000, 1060)])
    cases = {
        ("one:rcee",): "Did you mean 'rce'",
        ("nobody:rce",): "no run 'nobody'",
        ("one",): "RUN:METHOD",
        ("elsewhere:rce",): "different datasets: demo_world and vqa_json|different datasets: vqa_json and demo_world",
        ("captions:rce",): "different metrics: vqa and caption",
        ("split:rce",): "different splits: validation and test",
        ("apart:rce",): "no question in common",
        ("one:zero_shot", "one:rce"): "no question in common",
    }
    for members, message in cases.items():
        with pytest.raises(RegistryError, match=message) as e:
            grid_rows(grid, [Arm("arm", members)], BASE)
        assert "\n" not in str(e.value)
