"""What the registry gives as pandas frames: the same values as rows and CSV, with one type a column."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas
import pytest

from leverplus_core.cli.leaderboard import leaderboard
from leverplus_core.errors import RegistryError
from leverplus_core.records import Image, Prediction, Question
from leverplus_core.registry.frames import CURVES, LEADERBOARD, PREDICTIONS
from leverplus_core.registry.imported import ImportedMethod
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.report.leaderboard import FIELDS

FIRST = RunRecord(
    "aaa111", "first", "f" * 16, "demo_world", "qwen2_5_vl", 7, note="by hand", dataset_fingerprint="world"
)
SECOND = replace(FIRST, id="bbb222", name="second", seed=8, sweep="both", arm={"reward": "gap"})


def answered(
    method: str, shots: int, accuracies: list[float], copied: bool | None = None
) -> list[tuple[int, Prediction]]:
    return [
        (i, Prediction(method, shots, f"q{i}", f"image {i}", ("d1", "d2")[:shots], f" red {i}", "red", a, copied))
        for i, a in enumerate(accuracies)
    ]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(f"sqlite:///{tmp_path / 'r.db'}") as opened:
        for run in (FIRST, SECOND):
            opened.begin_run(run)
            for shots in (1, 2):
                found = answered("rce", shots, [1.0, 0.0, 0.6, 1.0], copied=True if shots == 1 else None)
                opened.record_cell_predictions(run.id, "rce", shots, found, [2, 4])
        opened.record_cell_predictions("aaa111", "=random", 1, answered("=random", 1, [0.0, 0.3]), [2])
        opened.record_methods("bbb222", {"rce": 120})
        opened.record_questions("aaa111", [Question("q0", "what?", Image("image 0", "i0.png"), ("red", "red", "blue"))])
        opened.record_curve("aaa111", "rce", [(0, {"loss": 2.0, "accuracy": 0.5}), (1, {"loss": math.nan})])
        yield opened


def test_the_leaderboard_has_each_runs_largest_sample_and_the_run_started_last_first(registry: Registry) -> None:
    found = registry.leaderboard()
    assert dict(found.dtypes.astype(str)) == LEADERBOARD
    assert found[["run", "method", "shots", "n", "accuracy"]].to_numpy().tolist() == [
        ["bbb222", "rce", 1, 4, pytest.approx(0.65)], ["bbb222", "rce", 2, 4, pytest.approx(0.65)],
        ["aaa111", "rce", 1, 4, pytest.approx(0.65)], ["aaa111", "rce", 2, 4, pytest.approx(0.65)],
    ]  # fmt: skip
    assert found["arm"].dropna().map(json.loads).tolist() == [{"reward": "gap"}] * 2
    assert found["prompts"].tolist() == [120, 120, pandas.NA, pandas.NA]
    assert found["copied"].dropna().tolist() == [1.0, 1.0]
    assert sorted(registry.leaderboard("second", every_size=True)["n"]) == [2, 2, 4, 4]
    assert registry.leaderboard(n=2, method="=random")["accuracy"].tolist() == [pytest.approx(0.15)]


def test_every_log_of_an_imported_run_is_on_the_leaderboard_whatever_its_length(registry: Registry) -> None:
    logs = [
        ImportedMethod(method, "llava", 0, ("log",), "lm-eval", tuple(p for _, p in answered(method, 0, found)), (), {},
                       1, 0)
        for method, found in (("long", [1.0, 0.0, 1.0]), ("short", [1.0, 0.0]))
    ]  # fmt: skip
    registry.record_samples("logs", "vqav2", "exact_match", "lm-eval", logs)
    assert registry.leaderboard("logs")[["method", "n"]].to_numpy().tolist() == [["long", 3], ["short", 2]]


def test_the_leaderboard_is_what_the_command_writes_as_csv(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, found in (
        ({}, registry.leaderboard()),
        ({"n": [2, 4]}, registry.leaderboard(n=[2, 4])),
        ({"run": ["first"]}, registry.leaderboard("first")),
    ):
        leaderboard(registry=registry.url, csv=True, **words)
        written = pandas.read_csv(
            io.StringIO(capsys.readouterr().out), dtype={k: LEADERBOARD[k] for k in FIELDS if k in LEADERBOARD}
        )
        key = ["run", "method", "shots", "n"]
        ours = found[list(written)].replace({"method": {"=random": "'=random"}})  # CSV: no formula for a spreadsheet
        pandas.testing.assert_frame_equal(
            ours.sort_values(key, ignore_index=True), written.sort_values(key, ignore_index=True)
        )


def test_predictions_are_the_rows_of_the_view(registry: Registry) -> None:
    found = registry.predictions("first")
    assert dict(found.dtypes.astype(str)) == PREDICTIONS and len(found) == 10
    text = "SELECT * FROM predictions_with_questions WHERE run = 'aaa111' ORDER BY method, shots, position"
    columns, rows = registry.sql(text)
    assert columns == list(found)
    for ours, theirs in zip(found.itertuples(index=False), rows, strict=True):
        values = [None if value is None or value is pandas.NA or value != value else value for value in ours]
        stored = [
            json.loads(v) if name in ("answers", "demonstrations") and v else v
            for name, v in zip(columns, theirs, strict=True)
        ]
        assert values == stored
    row = registry.predictions("first", "rce", shots=2, n=1).iloc[0]
    assert (row.question, row.answers, row.demonstrations) == ("what?", ["red", "red", "blue"], ["d1", "d2"])
    means = found.groupby(["method", "shots"])["accuracy"].mean()
    assert means["rce", 1] == pytest.approx(0.65) and means["=random", 1] == pytest.approx(0.15)
    with pytest.raises(RegistryError, match=r"no answers with method rec\. It has: =random, rce\."):
        registry.predictions("first", "rec")
    with pytest.raises(RegistryError, match=r"no answers with shots 3\. It has: 1, 2\."):
        registry.predictions("first", shots=3)


def test_curves_pivot_to_a_column_a_metric(registry: Registry) -> None:
    found = registry.curves("first")
    assert dict(found.dtypes.astype(str)) == CURVES
    wide = found.pivot(index="step", columns="metric", values="value")
    assert wide["accuracy"].iloc[0] == 0.5 and wide["loss"].iloc[0] == 2.0 and math.isnan(wide["loss"].iloc[1])
    assert set(found["name"]) == {"first"}


def test_frames_without_rows_have_the_same_columns_and_types(registry: Registry) -> None:
    assert dict(registry.curves("second").dtypes.astype(str)) == CURVES
    assert dict(registry.leaderboard(method="nobody").dtypes.astype(str)) == LEADERBOARD
