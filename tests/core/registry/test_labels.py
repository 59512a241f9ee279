"""What a user says about runs, and their removal: on SQLite, and on PostgreSQL where there are the programs for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from leverplus_core.errors import RegistryError
from leverplus_core.records import Demonstration, Image, Prediction, PublishedCell, PublishedTable, Question
from leverplus_core.registry import tables
from leverplus_core.registry.registry import Registry, RunRecord

RUN = RunRecord("aaa111", "demo", "f", "demo_world", "qwen", 0, {"seed": 0}, dataset_fingerprint="world")


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    sqlite = request.param == "sqlite"
    with Registry(f"sqlite:///{tmp_path / 'r.db'}" if sqlite else request.getfixturevalue("new_postgresql")()) as found:
        yield found


def fill(registry: Registry, run: RunRecord = RUN, status: str | None = "done") -> None:
    """A run with a row in every table."""
    registry.begin_run(run)
    registry.record_questions(
        run.id, [Question("q0", "what?", Image("i0"), ("a", "b"))], [Demonstration("d1", "which?", Image("i9"), "red")]
    )
    registry.record_stage(run.id, "sft", "0f", "done", 1.5, f"work/stages/sft-{run.id}", False, {"cost": {"asked": 3}})
    registry.record_curve(run.id, "sft", [(1, {"loss": 2.0, "odd": float("nan")})])
    registry.record_validation_questions(run.id, "sft", ["q7"])
    answers = [(i, Prediction("sft", 1, f"q{i}", f"i{i}", ("d1",), " a\n", "a", x)) for i, x in enumerate((1.0, 0.1))]
    registry.record_cell_predictions(run.id, "sft", 1, answers, [1, 2])
    registry.record_methods(run.id, {"sft": 3})
    registry.record_evaluation(run.id, "0e", "validation", [("q0", "i0"), ("q1", "i1")], ["sft"])
    if status:
        registry.finish_run(run.id, status)


def counts(registry: Registry) -> dict[str, int]:
    return {
        t: registry.sql(f"SELECT count(*) FROM {t}")[1][0][0] for t in tables.metadata.tables if t != "schema_version"
    }


def test_a_name_stays_when_the_recipe_is_run_again(registry: Registry) -> None:
    fill(registry)
    registry.rename_run("aaa111", "the best one")
    assert registry.resolve("the best one")["id"] == "aaa111"
    registry.begin_run(replace(RUN, note="again"))
    assert [(r["name"], r["note"]) for r in registry.runs()] == [("the best one", "again")]
    registry.begin_run(replace(RUN, id="bbb222"))
    for name, message in (
        ("the best one", "holds a run named 'the best one' already"), ("aaa111", "already"), ("latest", "not 'latest'"),
        ("a:b", "has no ':'"), (" ", "is not empty"), ("x" * 191, "up to 190"),
    ):  # fmt: skip
        with pytest.raises(RegistryError, match=message):
            registry.rename_run("bbb222", name)
    registry.rename_run("aaa111", "the best one")  # its own name is no other run's


def test_tags_and_a_note_are_kept_beside_the_run(registry: Registry) -> None:
    fill(registry)
    assert registry.labels() == {}
    assert registry.label_run("aaa111", add=["paper", "good"]) == {"note": "", "tags": ["good", "paper"]}
    assert registry.label_run("aaa111", note="table 2") == {"note": "table 2", "tags": ["good", "paper"]}
    assert registry.label_run("aaa111", add=["new"], remove=["good", "absent"])["tags"] == ["new", "paper"]
    registry.rename_run("aaa111", "named")
    assert registry.labels() == {"aaa111": {"note": "table 2", "tags": ["new", "paper"]}}
    assert registry.runs()[0]["note"] == "", "the protocol's note is another"


def test_a_deleted_run_leaves_only_that_it_asked_the_questions(registry: Registry) -> None:
    fill(registry)
    fill(registry, replace(RUN, id="bbb222", name="other"))
    registry.label_run("aaa111", add=["x"])
    registry.delete_run("aaa111")
    left = counts(registry)
    assert left == {**dict.fromkeys(left, 1), "labels": 0, "cells": 2, "predictions": 2, "curves": 2, "evaluations": 2}
    assert registry.question("bbb222", "q0") is not None, "another run has these questions"
    registry.delete_run("bbb222")
    left = counts(registry)
    assert left == {**dict.fromkeys(left, 0), "evaluations": 2}
    assert registry.runs_that_asked("world", "validation") == 2, "what was asked stays asked"
    fill(registry)
    assert registry.runs_that_asked("world", "validation") == 2, "the same run again is no further one"


def test_a_run_that_runs_is_not_deleted(registry: Registry) -> None:
    fill(registry, status=None)
    with pytest.raises(RegistryError, match=r"run aaa111 \(demo\) is running. Stop it first"):
        registry.delete_run("aaa111")
    assert counts(registry)["predictions"] == 2
    registry.finish_run("aaa111", "stopped")
    registry.delete_run("aaa111")
    assert registry.runs() == []


def test_a_copy_is_equal_there_and_back(new_postgresql: Callable[[], str], tmp_path: Path) -> None:
    first = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    fill(first)
    fill(first, replace(RUN, id="bbb222", name="other", sweep="s", arm={"reward": "mixed"}))
    first.label_run("aaa111", note="'quoted' ∑", add=["x"])
    first.record_published("paper", PublishedTable(("A",), (PublishedCell("A", 1, 100, "50.15", 3),)))

    def whole(registry: Registry) -> dict[str, list[object]]:
        return {
            **{t: sorted(map(repr, registry.sql(f"SELECT * FROM {t}")[1])) for t in ("runs", "stages", "evaluations")},
            "cells": registry.cells(), "labels": sorted(registry.labels().items()),
            "predictions": registry.cell_predictions("aaa111", "sft", 1), "curves": registry.curve_rows("bbb222"),
        }  # fmt: skip

    with Registry(new_postgresql()) as second, Registry(f"sqlite:///{tmp_path / 'back.db'}") as third:
        told = first.copy_to(second)
        assert told == counts(first) == second.copy_to(third) == counts(third)
        assert whole(first) == whole(third)
        assert whole(first)["cells"] == whole(second)["cells"]
        second.record_evaluation("aaa111", "0e", "validation", [("q0", "i0")], ["sft"])
        assert [row["id"] for row in second.evaluations()] == [1, 2, 3], "new rows are numbered after the copied ones"
        with pytest.raises(RegistryError, match=r"is not empty\. Copy into a new database"):
            first.copy_to(third)
