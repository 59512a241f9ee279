from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import JSON, inspect

from leverplus_core.errors import DataError, LeverplusWarning, RegistryError, StorageError
from leverplus_core.records import Demonstration, Image, Prediction, Question
from leverplus_core.registry import connected, database, migrations, readonly, tables
from leverplus_core.registry.liveness import STALE_S
from leverplus_core.registry.migrations import CURRENT
from leverplus_core.registry.registry import Registry, RunRecord

RUN = RunRecord(
    "abc123", "demo", "f" * 16, "demo_world", "qwen2_5_vl", 7,
    recipe={"seed": 7, "evaluation": {"shots": (1, 2)}}, parts=[{"kind": "sampler", "name": "random", "code": "0a1b"}],
    environment={"python": "3.11"}, git={"dirty": False}, note="not the standard protocol",
)  # fmt: skip


ON_SQLITE = {
    "test_sql_reads", "test_questions_and_demonstrations_come_back", "test_a_full_disk",
    "test_a_result_that_memory_does_not_hold_is_refused", "test_ctrl_c_stops_a_query",
}  # fmt: skip
"""Tests of what SQLite alone has: its functions, JSON as text in SQL, its way to have no room. Ctrl-C ends a query of
PostgreSQL as well, and leaves a cursor behind of which its driver warns."""


def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "leverplus.db"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that look at no file of SQLite run on PostgreSQL as well."""
    own = signature(metafunc.function).parameters
    if "registry" in own and "file" not in own and metafunc.function.__name__ not in ON_SQLITE:
        metafunc.parametrize("registry", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def registry(request: pytest.FixtureRequest, file: Path) -> Iterator[Registry]:
    where = getattr(request, "param", "sqlite")
    with Registry(url(file) if where == "sqlite" else request.getfixturevalue("new_postgresql")()) as opened:
        yield opened


def answers(method: str, shots: int, accuracies: list[float]) -> list[tuple[int, Prediction]]:
    return [
        (i, Prediction(method, shots, f"q{i}", f"image {i}", ("d1", "d2")[:shots], f" raw {i}", f"a {i}", accuracy))
        for i, accuracy in enumerate(accuracies)
    ]


def dump(file: Path) -> list[str]:
    with sqlite3.connect(file) as c:
        return list(c.iterdump())


def test_a_run_comes_back_as_it_went_in(registry: Registry) -> None:
    registry.begin_run(RUN)
    (row,) = registry.runs()
    assert row["recipe"] == {"seed": 7, "evaluation": {"shots": [1, 2]}}
    assert row["parts"] == [{"kind": "sampler", "name": "random", "code": "0a1b"}]
    assert (row["id"], row["status"], row["note"], row["git"], row["finished_at"]) == (
        "abc123", "running", "not the standard protocol", {"dirty": False}, None,
    )  # fmt: skip
    registry.finish_run("abc123", "done")
    (row,) = registry.runs()
    assert row["status"] == "done" and row["finished_at"] >= row["created_at"]


def test_beginning_again_keeps_what_is_done(registry: Registry) -> None:
    registry.begin_run(RUN)
    before = registry.runs()[0]
    registry.record_cell_predictions("abc123", "rce", 1, answers("rce", 1, [1, 0, 1]), [2, 3])
    registry.finish_run("abc123", "failed")
    registry.begin_run(replace(RUN, name="renamed"))
    (after,) = registry.runs()
    assert (after["status"], after["name"], after["finished_at"]) == ("running", "renamed", None)
    assert after["created_at"] == before["created_at"] and after["started_at"] > before["started_at"]
    assert registry.finished_cells("abc123") == {("rce", 1)}


def test_predictions_and_cells_round_trip(registry: Registry) -> None:
    registry.begin_run(RUN)
    rows = answers("rce", 2, [1.0, 0.0, 0.6, 1.0])
    registry.record_cell_predictions("abc123", "rce", 2, rows[::-1], [2, 4])
    assert registry.cell_predictions("abc123", "rce", 2) == rows
    assert registry.cell_predictions("abc123", "rce", 2, n=2) == rows[:2]
    assert registry.cell_predictions("abc123", "rce", 1) == []
    small, large = registry.cells(["abc123"])
    assert (small["n"], small["accuracy"]) == (2, 0.5)
    assert (large["n"], large["accuracy"]) == (4, pytest.approx(0.65))
    # By hand, with half a 0 and half a 1 more: center .62, squares .1444 .3844 .0004 .1444, (.3844 + .1444) / 2, over
    # 4 times 5, t(3) = 3.1824; the shares p with (p - .65)^2 = w p (1 - p).
    w = 3.182446305284263**2 * (0.6736 + 0.2644) / 20 / (0.62 * 0.38)
    low, high = np.sort(np.roots([1 + w, -(1.3 + w), 0.65**2]))
    assert (large["ci_low"], large["ci_high"]) == (pytest.approx(low), pytest.approx(high))


def test_scores_are_the_predictions(registry: Registry) -> None:
    registry.begin_run(RUN)
    registry.record_cell_predictions("abc123", "rce", 1, answers("rce", 1, [1.0, 0.0, 0.6, 0.3])[::-1], [2, 4])
    registry.record_cell_predictions("abc123", "sft", 1, answers("sft", 1, [0.0, 0.9, 0.6, 1.0]), [2, 4])
    for method in ("rce", "sft"):
        for n in (None, 4, 3, 2):
            found, told = registry.scores("abc123", method, 1, n), registry.cell_predictions("abc123", method, 1, n)
            assert list(found.question_id) == [p.question_id for _, p in told]
            assert list(found.image_id) == [p.image_id for _, p in told]
            assert found.accuracy.tolist() == [p.accuracy for _, p in told]
            assert found.position.tolist() == [position for position, _ in told]
    nobody = registry.scores("abc123", "rce", 2)
    assert len(nobody.accuracy) == len(nobody.question_id) == 0 and nobody.sample is None


def test_a_sample_says_who_answered_the_same_questions(registry: Registry) -> None:
    """Equal for the same questions, images, order and dataset, and for nothing else."""
    same = [replace(RUN, id=i, dataset_fingerprint="world") for i in ("a", "b", "c", "d")]
    for run in (*same, replace(RUN, id="other", dataset_fingerprint="elsewhere")):
        registry.begin_run(run)
    rows = answers("rce", 1, [1, 0, 1])
    swapped = [(0, rows[1][1]), (1, rows[0][1]), rows[2]]
    moved = [rows[0], rows[1], (2, replace(rows[2][1], image_id="another"))]
    for run_id, asked in (("a", rows), ("b", rows), ("c", swapped), ("d", moved), ("other", rows)):
        registry.record_cell_predictions(run_id, "rce", 1, asked, [2, 3])
    sample = {(c["run"], c["n"]): c["sample"] for c in registry.cells()}
    assert sample["a", 2] == sample["b", 2] == sample["d", 2] != sample["a", 3] == sample["b", 3]
    assert len({sample[r, 3] for r in ("a", "c", "d", "other")}) == 4
    assert len({sample[r, 2] for r in ("a", "c", "other")}) == 3
    assert registry.scores("a", "rce", 1).sample == sample["a", 3]
    assert registry.scores("a", "rce", 1, 2).sample == sample["a", 2]


ASKED = Question("q0", "what?", Image("i0", "pictures/i0.png"), ("a", "a", "b"))
SHOWN = Demonstration("d1", "which?", Image("i9", None, "a red ball"), "red")


def test_questions_and_demonstrations_come_back(registry: Registry) -> None:
    registry.begin_run(replace(RUN, dataset_fingerprint="world"))
    registry.begin_run(replace(RUN, id="same", dataset_fingerprint="world"))
    registry.begin_run(replace(RUN, id="other", dataset_fingerprint="elsewhere"))
    registry.record_questions("abc123", [ASKED], [SHOWN])
    registry.record_questions("other", [replace(ASKED, text="where?")])
    expected = {
        "dataset_fingerprint": "world", "id": "q0", "text": "what?", "image_id": "i0", "image_path": "pictures/i0.png",
        "caption": None, "answers": ["a", "a", "b"], "digest": None,
    }  # fmt: skip
    assert registry.question("abc123", "q0") == registry.question("same", "q0") == expected
    assert registry.demonstrations("same", ["d1", "d2"])["d1"]["answer"] == "red"
    assert registry.demonstrations("other", ["d1"]) == {} and registry.question("same", "q1") is None
    other = registry.question("other", "q0")
    assert other is not None and other["text"] == "where?"
    registry.record_cell_predictions("same", "rce", 1, answers("rce", 1, [1, 0]), [2])
    registry.record_cell_predictions("same", "sft", 2, answers("sft", 2, [0, 0]), [2])
    found = registry.sql("SELECT question_id, question, image_path, answers FROM predictions_with_questions")[1]
    assert sorted(found, key=str)[0] == ("q0", "what?", "pictures/i0.png", '["a", "a", "b"]')
    assert [(r["method"], r["shots"], r["demonstrations"], r["accuracy"]) for r in registry.answers("same", "q0")] == [
        ("rce", 1, ["d1"], 1.0), ("sft", 2, ["d1", "d2"], 0.0),
    ]  # fmt: skip
    assert registry.answers("same", "q7") == []
    with pytest.raises(RegistryError, match="Begin the run"):
        registry.record_questions("nobody", [ASKED])


def test_asking_again_and_many_demonstrations(registry: Registry) -> None:
    registry.begin_run(RUN)
    many = [replace(SHOWN, id=f"d{i}") for i in range(1200)]
    registry.record_questions("abc123", [ASKED], many[:700])
    registry.record_questions("abc123", [replace(ASKED, text="changed?"), replace(ASKED, id="q1")], many)
    assert registry.sql("SELECT id, text FROM questions ORDER BY id")[1] == [("q0", "what?"), ("q1", "what?")]
    assert len(registry.demonstrations("abc123", [d.id for d in many])) == 1200


def test_two_runs_write_at_once(file: Path) -> None:
    """Two real processes with the same questions, each its own cells: all of both are there."""
    Registry(url(file)).close()
    program = """
import sys
from leverplus_core.records import Image, Prediction, Question
from leverplus_core.registry.registry import Registry, RunRecord
registry = Registry(sys.argv[1])
run = sys.argv[2]
questions = [Question(str(i), "what?", Image(str(i)), ("a",)) for i in range(2000)]
registry.begin_run(RunRecord(run, run, run, "d", "m", 0, dataset_fingerprint="world"))
for shots in range(1, 9):
    registry.record_questions(run, questions[: 250 * shots])
    rows = [(i, Prediction("rce", shots, q.id, q.id, (), "", "", 1.0)) for i, q in enumerate(questions[:200])]
    registry.record_cell_predictions(run, "rce", shots, rows, [100, 200])
registry.finish_run(run, "done")
"""
    both = [
        subprocess.Popen([sys.executable, "-c", program, url(file), run], stderr=subprocess.PIPE, text=True)
        for run in ("a", "b")
    ]
    assert [(p.communicate(timeout=100)[1], p.returncode) for p in both] == [("", 0), ("", 0)]
    with Registry(url(file)) as registry:
        assert registry.sql("SELECT run_id, count(*) FROM predictions GROUP BY run_id ORDER BY 1")[1] == [
            ("a", 1600), ("b", 1600),
        ]  # fmt: skip
        assert registry.sql("SELECT count(*) FROM questions")[1] == [(2000,)]
        assert len({c["sample"] for c in registry.cells(n=200)}) == 1


def test_a_run_stays_in_its_sweep(registry: Registry) -> None:
    registry.begin_run(replace(RUN, sweep="grid", arm={"reward": "mixed"}))
    registry.begin_run(RUN)
    (row,) = registry.runs()
    assert (row["sweep"], row["arm"], row["source"]) == ("grid", {"reward": "mixed"}, "run")
    registry.begin_run(replace(RUN, sweep="later", arm={"seed": 7}))
    assert (registry.runs()[0]["sweep"], registry.runs()[0]["arm"]) == ("later", {"seed": 7})
    registry.begin_run(replace(RUN, id="alone"))
    assert registry.sql("SELECT sweep, arm FROM runs WHERE id = 'alone'")[1] == [(None, None)]


def test_a_cell_says_how_many_answers_were_copied_where_it_is_known_of_all(registry: Registry) -> None:
    registry.begin_run(RUN)
    flags = (True, False, True, None)
    rows = [(i, replace(p, copied=flag)) for (i, p), flag in zip(answers("rce", 1, [1] * 4), flags, strict=True)]
    registry.record_cell_predictions("abc123", "rce", 1, rows, [1, 2, 3, 4])
    assert registry.cell_predictions("abc123", "rce", 1) == rows
    assert [c["copied"] for c in registry.cells()] == [1.0, 0.5, pytest.approx(2 / 3), None]


def test_the_prompts_of_methods_are_replaced_and_stand_in_their_cells(registry: Registry) -> None:
    registry.begin_run(RUN)
    for method in ("random", "rce"):
        registry.record_cell_predictions("abc123", method, 1, answers(method, 1, [1, 0]), [2])
    assert registry.method_prompts("abc123") == {} and {c["prompts"] for c in registry.cells()} == {None}
    registry.record_methods("abc123", {"random": 7, "gone": 8})
    registry.record_methods("abc123", {"random": 0, "rce": None})
    assert registry.method_prompts("abc123") == {"random": 0}
    assert [(c["method"], c["prompts"]) for c in registry.cells()] == [("random", 0), ("rce", None)]
    registry.forget_evaluation("abc123")
    assert registry.method_prompts("abc123") == {} == registry.method_prompts("nobody")
    with pytest.raises(RegistryError, match="refuses a row"):
        registry.record_methods("nobody", {"random": 0})


def test_evaluations_are_a_list_that_grows_only(registry: Registry) -> None:
    for run_id, world in (("a", "world"), ("b", "world"), ("c", "elsewhere")):
        registry.begin_run(replace(RUN, id=run_id, name=f"run {run_id}", dataset_fingerprint=world))
    asked = [(f"q{i}", f"image {i}") for i in range(3)]

    def add(run_id: str, fingerprint: str, split: str = "validation", n: int = 3, taken_over: bool = False) -> None:
        registry.record_evaluation(run_id, fingerprint, split, asked[:n], ["random", "rce"], taken_over)

    add("a", "f1")
    add("a", "f1", taken_over=True)  # known
    add("b", "f1", taken_over=True)
    add("b", "f1", taken_over=True)  # known
    add("a", "f1")  # computed again
    registry.forget_evaluation("a")
    add("a", "f2", n=2)
    add("b", "f3", "held_out")
    add("c", "f4")
    rows = registry.evaluations()
    assert [(r["run_id"], r["fingerprint"], r["n"]) for r in rows] == [
        ("a", "f1", 3), ("b", "f1", 3), ("a", "f1", 3), ("a", "f2", 2), ("b", "f3", 3), ("c", "f4", 3),
    ]  # fmt: skip
    assert (rows[1]["name"], rows[1]["methods"]) == ("run b", ["random", "rce"])
    assert registry.runs_that_asked("world", "validation") == 2 == len({r["run_id"] for r in rows[:4]})
    assert registry.runs_that_asked("world", "held_out") == registry.runs_that_asked("elsewhere", "validation") == 1
    assert registry.evaluations("elsewhere") == rows[5:] and registry.evaluations("nowhere") == []
    registry.record_cell_predictions("a", "rce", 1, answers("rce", 1, [1, 0, 1]), [2, 3])
    small, large = registry.cells(["a"])
    assert registry.evaluations(sample=large["sample"]) == [*rows[:3], rows[4]]
    assert registry.evaluations("world", small["sample"]) == [rows[3]]
    with pytest.raises(RegistryError, match="no run nobody"):
        add("nobody", "f1")


def test_every_write_may_be_repeated(registry: Registry, file: Path) -> None:
    registry.begin_run(RUN)

    def write() -> None:
        registry.record_stage("abc123", "sft", "0f", "done", 1.5, "stages/sft-0f", reused=False)
        registry.record_curve("abc123", "sft", [(1, {"loss": 2.0, "validation": 0.4}), (2, {"loss": 1.0})])
        registry.record_cell_predictions("abc123", "zero_shot", 0, answers("zero_shot", 0, [1, 0, 1]), [2, 3])
        registry.record_cell_predictions("abc123", "rce", 1, answers("rce", 1, [1, 1, 1]), [3])

    write()
    once = dump(file)
    assert len(registry.cells()) == 3
    write()
    assert dump(file) == once


def test_a_repeat_replaces_what_was_there(registry: Registry) -> None:
    registry.begin_run(RUN)
    registry.record_cell_predictions("abc123", "rce", 1, answers("rce", 1, [0, 0, 0]), [2, 3])
    registry.record_cell_predictions("abc123", "rce", 1, answers("rce", 1, [1, 1]), [2])
    assert [(c["n"], c["accuracy"]) for c in registry.cells()] == [(2, 1.0)]
    assert len(registry.cell_predictions("abc123", "rce", 1)) == 2
    registry.record_curve("abc123", "sft", [(1, {"loss": 2.0}), (2, {"loss": 1.0})])
    registry.record_curve("abc123", "sft", [(1, {"loss": math.nan})])
    assert registry.curve_rows("abc123") == [
        {"run_id": "abc123", "stage": "sft", "step": 1, "metric": "loss", "value": None}
    ]
    registry.record_stage("abc123", "sft", "0f", "running", 0.0, "p", reused=False)
    registry.record_stage("abc123", "evaluate", "1f", "done", 0.0, "p", reused=False)
    registry.record_stage("abc123", "sft", "0f", "done", 2.0, "p", reused=True, metadata={"cost": {"prompts": 7}})
    assert [(s["name"], s["status"], s["reused"], s["metadata"]) for s in registry.stages("abc123")] == [
        ("sft", "done", True, {"cost": {"prompts": 7}}), ("evaluate", "done", False, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "sizes", "message"),
    [
        (answers("rce", 1, [1, 0])[1:], [1], "positions"),
        (answers("rce", 1, [1]) * 2, [1], "positions"),
        (answers("rce", 2, [1]), [1], "another cell"),
        (answers("rce", 1, [1, 0]), [3], "no sample of 3"),
        (answers("rce", 1, [1, 0]), [0], "no sample of 0"),
        (answers("rce", 1, [math.nan, 0]), [2], r"\[0, 1\]"),
    ],
)
def test_bad_cells_are_refused_whole(
    registry: Registry, rows: list[tuple[int, Prediction]], sizes: list[int], message: str
) -> None:
    registry.begin_run(RUN)
    with pytest.raises(DataError, match=message):
        registry.record_cell_predictions("abc123", "rce", 1, rows, sizes)
    assert registry.cell_predictions("abc123", "rce", 1) == [] and registry.cells() == []


def test_a_failure_in_the_middle_leaves_the_cell_as_it_was(registry: Registry) -> None:
    registry.begin_run(RUN)
    first = answers("rce", 1, [0, 1])
    registry.record_cell_predictions("abc123", "rce", 1, first, [2])
    twice = [(0, first[0][1]), (1, replace(first[1][1], question_id="q0"))]  # breaks the primary key at the second row
    with pytest.raises(RegistryError):
        registry.record_cell_predictions("abc123", "rce", 1, twice, [2])
    assert registry.cell_predictions("abc123", "rce", 1) == first
    assert registry.finished_cells("abc123") == {("rce", 1)}


def test_a_kill_in_the_middle_of_a_cell_leaves_none_of_it(registry: Registry, file: Path) -> None:
    """A real process, killed by a trigger-like hook: SQLite calls it as the cell's rows go in."""
    registry.begin_run(RUN)
    registry.record_cell_predictions("abc123", "random", 1, answers("random", 1, [1, 0]), [2])
    program = f"""
import os, signal
from sqlalchemy import event
from leverplus_core.records import Demonstration, Image, Prediction, Question
from leverplus_core.registry.registry import Registry
registry = Registry({url(file)!r})
@event.listens_for(registry._engine, "before_cursor_execute")
def die(connection, cursor, statement, *rest):
    if statement.startswith("INSERT INTO cells"):
        assert connection.exec_driver_sql("SELECT count(*) FROM predictions WHERE method = 'rce'").scalar() == 500
        os.kill(os.getpid(), signal.SIGKILL)
rows = [(i, Prediction("rce", 1, str(i), str(i), ("d",), "x" * 1000, "x", 1.0)) for i in range(500)]
registry.record_cell_predictions("abc123", "rce", 1, rows, [500])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    again = Registry(url(file))
    assert again.finished_cells("abc123") == {("random", 1)}
    assert again.cell_predictions("abc123", "rce", 1) == []
    assert again.sql("SELECT count(*) FROM predictions")[1] == [(2,)]
    again.record_cell_predictions("abc123", "rce", 1, answers("rce", 1, [1, 0]), [2])


def test_writing_to_a_run_that_never_began(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="Begin the run"):
        registry.record_stage("nobody", "sft", "0f", "done", 1.0, "p", reused=False)
    with pytest.raises(RegistryError, match="nobody"):
        registry.finish_run("nobody", "done")


def test_resolve(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="no runs"):
        registry.resolve("latest")
    for run_id, name in (("abc123", "demo"), ("abd456", "laptop"), ("ffe789", "demo"), ("99", "abd")):
        registry.begin_run(replace(RUN, id=run_id, name=name))
    assert registry.resolve("abc123")["id"] == "abc123"
    assert registry.resolve("abc")["id"] == "abc123"
    with pytest.warns(LeverplusWarning, match=r"2 runs are named 'demo': this is about ffe789, .*\(others: abc123 of"):
        assert registry.resolve("demo")["id"] == "ffe789"
    assert registry.resolve("latest")["id"] == "99"
    assert registry.resolve("abd")["id"] == "99"  # its name; the other is reached by more of its id
    assert registry.resolve("abd4")["id"] == "abd456"
    registry.begin_run(RUN)
    with pytest.warns(LeverplusWarning, match="this is about abc123"):
        assert registry.resolve("latest")["id"] == registry.resolve("demo")["id"] == "abc123"
    with pytest.raises(RegistryError, match=r"'ab' is the start of 2 runs: .*abc123 \(demo\).*abd456|abd456.*abc123"):
        registry.resolve("ab")
    with pytest.raises(RegistryError, match=r"no run 'laptpo'.*Did you mean 'laptop'\?.*Known: abd, demo, laptop"):
        registry.resolve("laptpo")
    for text in ("", "%", "ab_123"):
        with pytest.raises(RegistryError, match="no run"):
            registry.resolve(text)


def test_cells_filter(registry: Registry) -> None:
    for run_id in ("a1", "b2"):
        registry.begin_run(replace(RUN, id=run_id, name=f"run {run_id}"))
        for shots in (1, 2):
            registry.record_cell_predictions(run_id, "rce", shots, answers("rce", shots, [1, 0]), [1, 2])
    assert len(registry.cells()) == 8
    assert {c["run"] for c in registry.cells(["b2"])} == {"b2"}
    assert [(c["run"], c["shots"], c["n"]) for c in registry.cells(shots=2, n=[2, 5])] == [("a1", 2, 2), ("b2", 2, 2)]
    assert registry.cells([]) == [] and registry.cells(method="sft") == []
    with pytest.raises(RegistryError, match=r"no column 'shot'.*'shots'"):
        registry.cells(shot=1)


def test_a_new_registry_has_the_tables_and_views_that_the_program_reads(registry: Registry) -> None:
    found = inspect(registry._engine)
    assert set(found.get_table_names()) == set(tables.metadata.tables)
    assert set(found.get_view_names()) == set(tables.VIEWS)
    for name, view in tables.VIEWS.items():
        assert [c["name"] for c in found.get_columns(name)] == [c.name for c in view.selected_columns]
    for table in tables.metadata.tables.values():
        columns = {c["name"]: c for c in found.get_columns(table.name)}
        assert list(columns) == [c.name for c in table.columns]
        for column in table.columns:
            assert columns[column.name]["nullable"] == column.nullable, column
            assert isinstance(columns[column.name]["type"], JSON) == isinstance(column.type, JSON), column
        assert found.get_pk_constraint(table.name)["constrained_columns"] == [c.name for c in table.primary_key]
        keys = [(k["constrained_columns"], k["referred_table"]) for k in found.get_foreign_keys(table.name)]
        assert keys == [([k.parent.name], k.column.table.name) for k in table.foreign_keys]
    assert [i["name"] for i in found.get_indexes("predictions")] == ["predictions_scores"]


def test_opening_again_changes_nothing(registry: Registry, file: Path) -> None:
    registry.begin_run(RUN)
    registry.close()
    before = dump(file)
    with Registry(url(file)) as again:
        assert again.resolve("latest")["id"] == "abc123"
    assert dump(file) == before
    assert again.sql("SELECT version FROM schema_version") == (["version"], [(CURRENT,)])


def test_a_registry_of_an_older_version_takes_the_missing_steps_and_loses_nothing(
    registry: Registry, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.begin_run(RUN)
    registry.close()
    steps = (("ALTER TABLE runs ADD COLUMN added TEXT", "UPDATE runs SET added = id"), ("DROP TABLE curves",))
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, *steps))
    for module in (migrations, connected):
        monkeypatch.setattr(module, "CURRENT", CURRENT + 2)
    with Registry.open_existing(url(file)) as newer:
        assert newer.sql("SELECT id, added FROM runs")[1] == [("abc123", "abc123")]
        assert newer.sql("SELECT version FROM schema_version")[1] == [(CURRENT + 2,)]
    before = dump(file)
    Registry(url(file)).close()
    assert dump(file) == before


LATER = ("runs", "stages", "questions")
"""The tables that got columns after version 1."""


def test_a_registry_of_version_1_gets_the_columns_that_it_lacks(registry: Registry, file: Path) -> None:
    registry.begin_run(RUN)
    registry.record_stage("abc123", "sft", "f1", "done", 1.0, "/work", reused=False)
    whole = {name: {c["name"] for c in inspect(registry._engine).get_columns(name)} for name in LATER}
    registry.close()
    with sqlite3.connect(file) as c:
        c.execute("ALTER TABLE runs DROP COLUMN planned")
        c.execute("ALTER TABLE stages DROP COLUMN progress")
        c.execute("ALTER TABLE questions DROP COLUMN digest")
        c.execute("UPDATE schema_version SET version = 1")
    before = dump(file)
    with pytest.raises(RegistryError, match=f"has version 1; this leverplus reads {CURRENT}.*leverplus runs"):
        Registry(url(file), read_only=True)
    assert dump(file) == before
    with Registry(url(file)) as newer:
        assert newer.resolve("abc123")["planned"] is None and newer.stages("abc123")[0]["progress"] is None
        for name, columns in whole.items():
            assert {c["name"] for c in inspect(newer._engine).get_columns(name)} == columns


def test_a_registry_opened_to_be_read_writes_nothing(registry: Registry, file: Path) -> None:
    registry.begin_run(RUN)
    with Registry(url(file), read_only=True) as reader:
        assert reader.resolve("latest")["id"] == "abc123"
        registry.record_stage("abc123", "sft", "f1", "done", 1.0, "/work", reused=False)  # while it is open
        assert [row["name"] for row in reader.stages("abc123")] == ["sft"]
        for write in (lambda: reader.begin_run(RUN), lambda: reader.delete_run("abc123")):
            with pytest.raises(RegistryError, match="cannot be opened or written"):
                write()
    with pytest.raises(RegistryError, match="no registry at"):
        Registry(url(file.with_name("absent.db")), read_only=True)
    assert not file.with_name("absent.db").exists()


def test_a_registry_whose_creation_is_killed_is_created_by_the_next(file: Path) -> None:
    program = f"""
import os, signal
from sqlalchemy import event
from sqlalchemy.engine import Engine
@event.listens_for(Engine, "before_cursor_execute")
def die(connection, cursor, statement, *rest):
    if statement.startswith("CREATE VIEW predictions_with_questions"):
        os.kill(os.getpid(), signal.SIGKILL)
from leverplus_core.registry.registry import Registry
Registry({url(file)!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with sqlite3.connect(file) as c:
        assert c.execute("SELECT name FROM sqlite_master").fetchall() == []
    Registry(url(file)).begin_run(RUN)


def test_two_that_create_a_registry_at_once(file: Path) -> None:
    program = f"from leverplus_core.registry.registry import Registry; print(len(Registry({url(file)!r}).cells()))"
    both = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.communicate(timeout=60)[0].strip() for p in both] == ["0", "0"]


def test_a_registry_of_before_the_first_release_is_told_and_left_alone(registry: Registry, file: Path) -> None:
    registry.close()
    with sqlite3.connect(file) as c:
        c.execute("DROP TABLE labels")
    before = dump(file)
    for must_exist in (False, True):
        with pytest.raises(RegistryError, match=r"was made before the first release.*run again"):
            Registry(url(file), must_exist)
    assert dump(file) == before


def test_a_newer_registry_is_left_alone(registry: Registry, file: Path) -> None:
    registry.close()
    with sqlite3.connect(file) as c:
        c.execute("UPDATE schema_version SET version = ?", (CURRENT + 1,))
    before = dump(file)
    for must_exist in (False, True):
        with pytest.raises(RegistryError, match=f"has version {CURRENT + 1}.*knows up to {CURRENT}.*Update"):
            Registry(url(file), must_exist)
    assert dump(file) == before


def test_a_creation_that_fails_leaves_nothing_behind(file: Path) -> None:
    with sqlite3.connect(file) as c:
        c.execute("CREATE TABLE cells (x)")  # one of the statements will fail
    with pytest.raises(RegistryError, match="cells already exists"):
        Registry(url(file))
    with sqlite3.connect(file) as c:
        assert c.execute("SELECT name FROM sqlite_master").fetchall() == [("cells",)]
        c.execute("DROP TABLE cells")
    Registry(url(file)).begin_run(RUN)


def test_reading_never_makes_a_registry(tmp_path: Path) -> None:
    missing = tmp_path / "folder" / "none.db"
    with pytest.raises(RegistryError, match=r"no registry at .*none\.db"):
        Registry.open_existing(url(missing))
    assert list(tmp_path.iterdir()) == []
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as c:
        c.execute("CREATE TABLE notes (x)")
    with pytest.raises(RegistryError, match="no registry at"):
        Registry.open_existing(url(other))
    assert len(dump(other)) == 3


def test_places_that_cannot_hold_a_registry(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("not a folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "noise.db").write_bytes(bytes(range(256)) * 64)
    for bad in (plain / "x.db", tmp_path / "folder", tmp_path / "noise.db", plain):
        with pytest.raises(RegistryError) as e:
            Registry(url(bad))
        assert "\n" not in str(e.value) and str(bad) in str(e.value) and "--registry" in str(e.value)
    for text in ("leverplus.db", "", "nosql://x", "postgresql+nodriver://u:secret@h/x"):
        with pytest.raises(RegistryError):
            Registry(text)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_still_read(registry: Registry, file: Path) -> None:
    registry.begin_run(RUN)
    registry.close()
    file.parent.chmod(0o500)
    try:
        assert Registry.open_existing(url(file)).resolve("latest")["id"] == "abc123"
        with pytest.raises(RegistryError, match="cannot be opened or written"):
            Registry(url(file)).begin_run(replace(RUN, id="x"))
    finally:
        file.parent.chmod(0o700)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_without_permission(registry: Registry, file: Path) -> None:
    registry.close()
    file.chmod(0o400)
    with pytest.raises(RegistryError, match="cannot be opened or written"):
        Registry(url(file)).begin_run(RUN)


def test_a_truncated_registry(registry: Registry, file: Path) -> None:
    registry.begin_run(RUN)
    registry.close()
    file.write_bytes(file.read_bytes()[:6000])
    with pytest.raises(RegistryError, match="damaged"):
        Registry(url(file)).runs()


def test_a_full_disk(registry: Registry) -> None:
    registry.begin_run(RUN)
    with registry._engine.connect() as c:  # SQLite's own limit fails as a disk without room does
        pages = c.exec_driver_sql("PRAGMA page_count").scalar()
        c.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="no room left to write registry"):
        registry.record_cell_predictions("abc123", "rce", 1, answers("rce", 1, [1.0] * 2000), [2000])
    assert registry.finished_cells("abc123") == set()


def test_a_locked_registry(registry: Registry, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.begin_run(RUN)
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(RegistryError, match="locked by another program"):
        Registry(url(file)).begin_run(RUN)
    assert Registry(url(file)).resolve("latest")["id"] == "abc123"  # readers go on while another writes
    holder.close()


def test_writers_wait_for_each_other(file: Path) -> None:
    Registry(url(file)).begin_run(RUN)
    failed: list[Exception] = []

    def write(shots: int) -> None:
        try:
            with Registry(url(file)) as mine:
                for _ in range(5):
                    mine.record_cell_predictions("abc123", "rce", shots, answers("rce", shots, [1, 0] * 20), [10, 40])
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=write, args=(s,)) for s in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed
    assert Registry(url(file)).finished_cells("abc123") == {("rce", s) for s in range(1, 5)}


def test_sql_reads(registry: Registry) -> None:
    registry.begin_run(RUN)
    registry.record_cell_predictions("abc123", "rce", 1, answers("rce", 1, [1, 0]), [2])
    columns, rows = registry.sql("SELECT run, name, method, shots, n, accuracy, note FROM leaderboard")
    assert columns == ["run", "name", "method", "shots", "n", "accuracy", "note"]
    assert rows == [("abc123", "demo", "rce", 1, 2, 0.5, "not the standard protocol")]
    assert registry.sql("WITH x AS (SELECT 1 AS y) SELECT y, '%s' FROM x")[1] == [(1, "%s")]
    assert registry.sql("  -- a remark\n SELECT count(*) FROM predictions WHERE accuracy > 0.5;")[1] == [(1,)]
    assert registry.sql("SELECT json_extract(recipe, '$.seed') FROM runs")[1] == [(7,)]


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO runs (id) VALUES ('x')",
        "DELETE FROM cells",
        "UPDATE cells SET accuracy = 1 RETURNING accuracy",
        "DROP TABLE runs",
        "PRAGMA query_only = OFF",
        "PRAGMA user_version = 3",
        "ATTACH 'elsewhere.db' AS elsewhere",
        "WITH x AS (SELECT 1) DELETE FROM cells",
        "/* SELECT */ REPLACE INTO schema_version VALUES (9)",
        "CREATE TEMP TABLE x (y)",
        "VACUUM INTO 'elsewhere.db'",
        "EXPLAIN DELETE FROM cells",
        "COMMIT",
        "SELECT 1; DELETE FROM cells",
        "SELECT load_extension('x')",
        "SELECT writefile('elsewhere.db', 'x')",
        "SELECT zeroblob(100000000)",
        "SELECT nothing FROM cells",
        "SELEC 1",
        "SELECT ?",
        "SELECT '\0'",
        "",
    ],
)
def test_sql_refuses_the_rest_and_changes_nothing(
    registry: Registry, file: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    registry.begin_run(RUN)
    registry.record_cell_predictions("abc123", "rce", 1, answers("rce", 1, [1, 0]), [2])
    before = dump(file)
    with pytest.raises(RegistryError) as e:
        registry.sql(text)
    assert "\n" not in str(e.value)
    assert dump(file) == before
    assert not (tmp_path / "elsewhere.db").exists()
    registry.finish_run("abc123", "done")  # the connection that refused can write again


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "


@pytest.mark.parametrize("chosen", ["SELECT count(*) FROM n", "SELECT i FROM n", "SELECT i FROM n WHERE i < 0"])
def test_a_query_that_never_ends_is_stopped(registry: Registry, chosen: str) -> None:
    with pytest.raises(RegistryError, match=r"had not ended after 0\.2 s\. Ask for less, or allow more with --seconds"):
        registry.sql(ENDLESS + chosen, seconds=0.2)


def test_a_result_without_end_is_cut_after_so_many_rows(registry: Registry) -> None:
    assert registry.sql(ENDLESS + "SELECT i FROM n", limit=3) == (["i"], [(1,), (2,), (3,)])


def test_a_result_that_memory_does_not_hold_is_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readonly, "RESULT_BYTES", 1 << 20)
    with pytest.raises(RegistryError, match="larger than 1 MB"):
        registry.sql(ENDLESS + "SELECT zeroblob(1000) FROM n")


def test_ctrl_c_stops_a_query(registry: Registry) -> None:
    for chosen in ("SELECT count(*) FROM n", "SELECT i FROM n"):
        threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            registry.sql(ENDLESS + chosen, seconds=30)
    assert registry.sql("SELECT 1")[1] == [(1,)]


def test_a_registry_in_memory() -> None:
    registry = Registry("sqlite://")
    registry.begin_run(RUN)
    with pytest.raises(RegistryError):
        registry.sql("DELETE FROM runs")
    assert registry.sql("SELECT id FROM runs")[1] == [("abc123",)]
    registry.close()


# --- runs that do not come to their end ---


def heard_of(registry: Registry, run: str, **values: object) -> None:
    """Change what is known of a run's process."""
    with registry._write() as c:
        c.execute(tables.runs.update().where(tables.runs.c.id == run).values(values))


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="microseconds")


@pytest.mark.parametrize(
    ("known", "status"),
    [
        ({}, "running"),
        ({"host": "elsewhere"}, "running"),
        ({"alive_at": STALE_S / 2}, "running"),
        ({"alive_at": 2 * STALE_S}, "interrupted"),
        ({"alive_at": 2 * STALE_S, "host": "elsewhere"}, "interrupted"),
        ({"pid": 2**22 + 1}, "interrupted"),
        ({"pid": 2**22 + 1, "host": "elsewhere"}, "running"),
        ({"pid": 2**22 + 1, "status": "failed"}, "failed"),
    ],
)
def test_a_run_whose_process_has_ended_or_is_silent_is_interrupted_for_every_reader(
    registry: Registry, known: dict[str, Any], status: str
) -> None:
    registry.begin_run(RUN)
    registry.record_cell_predictions("abc123", "rce", 1, answers("rce", 1, [1, 0]), [2])
    registry.record_stage("abc123", "rce", "0f", "done", 0.0, "p", reused=False)
    registry.record_stage("abc123", "evaluate", "1f", "running", 0.0, "p", reused=False)
    silent = {"alive_at": ago(known["alive_at"])} if "alive_at" in known else {}
    heard_of(registry, "abc123", **{"status": "running", **known, **silent})
    interrupted = status == "interrupted"
    [run] = registry.runs()
    assert run["status"] == registry.resolve("demo")["status"] == status
    assert [s["status"] for s in registry.stages("abc123")] == ["done", "interrupted" if interrupted else "running"]
    assert [c["status"] for c in registry.cells()] == [status]
    assert len(registry.cells(status=status)) == 1 and len(registry.cells(status=["running"])) == (status == "running")
    if "alive_at" in known:  # which SQL alone can tell
        assert registry.sql("SELECT status FROM leaderboard")[1] == [(status,)]
    # The next run stores it, and says when it was heard of last.
    last = run["alive_at"]
    registry.begin_run(replace(RUN, id="other"))
    assert registry.sql("SELECT status FROM runs WHERE id = 'abc123'")[1] == [(status,)]
    if interrupted:
        assert registry.resolve("abc123")["finished_at"] == last


def test_a_run_that_is_heard_of_again_runs(registry: Registry) -> None:
    registry.begin_run(RUN)
    registry.record_stage("abc123", "sft", "0f", "running", 0.0, "p", reused=False)
    heard_of(registry, "abc123", alive_at=ago(2 * STALE_S), status="interrupted", pid=1)
    registry.beat("abc123", {"sft": 2.5}, {"sft": {"label": "training", "done": 3, "total": 20}})
    assert registry.stages("abc123")[0]["progress"] == {"label": "training", "done": 3, "total": 20}
    [run] = registry.runs()
    assert (run["status"], run["pid"], run["finished_at"]) == ("running", os.getpid(), None)
    assert [(s["status"], s["seconds"]) for s in registry.stages("abc123")] == [("running", 2.5)]
    registry.finish_run("abc123", "stopped")
    assert [s["status"] for s in registry.stages("abc123")] == ["stopped"]
    registry.finish_run("abc123", "done")
    registry.beat("abc123", {"sft": 9.0})  # of a second process, which runs it again
    assert (registry.runs()[0]["status"], registry.stages("abc123")[0]["seconds"]) == ("done", 2.5)


def test_cells_of_a_name_are_those_of_the_run_and_an_unknown_one_is_refused(registry: Registry) -> None:
    registry.begin_run(RUN)
    registry.begin_run(replace(RUN, id="b2", name="grid"))
    for run in ("abc123", "b2"):
        registry.record_cell_predictions(run, "rce", 1, answers("rce", 1, [1, 0]), [2])
    assert [c["run"] for c in registry.cells(["demo"])] == [c["run"] for c in registry.cells(["abc"])] == ["abc123"]
    assert [c["run"] for c in registry.cells(["grid", "abc123"])] == ["abc123", "b2"]
    with pytest.raises(RegistryError, match=r"no run 'demmo' .*Did you mean 'demo'\? Known: demo, grid"):
        registry.cells(["abc123", "demmo"])
