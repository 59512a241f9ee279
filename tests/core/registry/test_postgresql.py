"""The registry on a real PostgreSQL server, where there are the programs to start one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from leverplus_core.errors import RegistryError
from leverplus_core.records import Demonstration, Image, Prediction, PublishedCell, PublishedTable, Question
from leverplus_core.registry.registry import Registry, RunRecord
from tools.soak.comparison import differ, registry_rows
from tools.soak.kills import SETTINGS, TINY

RUN = RunRecord("abc123", "demo", "f", "demo_world", "qwen", 7, {"seed": 7}, dataset_fingerprint="world")


@pytest.fixture
def url(new_postgresql: Callable[[], str]) -> str:
    """An empty database of the test's own."""
    return new_postgresql()


def answers(method: str, accuracies: list[float]) -> list[tuple[int, Prediction]]:
    return [(i, Prediction(method, 1, f"q{i}", f"i{i}", ("d1",), " a", "a", x)) for i, x in enumerate(accuracies)]


def test_all_that_sqlite_does(url: str) -> None:
    with Registry(url) as registry:
        registry.begin_run(RUN)
        registry.begin_run(RUN)
        registry.record_questions("abc123", [Question("q0", "what?", Image("i0"), ("a", "b"))], [
            Demonstration("d1", "which?", Image("i9", None, "a ball"), "red")])  # fmt: skip
        registry.record_stage("abc123", "sft", "0f", "done", 1.5, "p", reused=False)
        registry.record_curve("abc123", "sft", [(1, {"loss": 2.0, "odd": float("nan")})])
        registry.record_cell_predictions("abc123", "rce", 1, answers("rce", [1, 0, 0.6]), [2, 3])
        registry.record_cell_predictions("abc123", "sft", 1, answers("sft", [0, 0, 0.3]), [2, 3])
        registry.record_methods("abc123", {"rce": 30, "sft": None})
        asked = [(f"q{i}", f"i{i}") for i in range(3)]
        for taken_over in (False, True, False):
            registry.record_evaluation("abc123", "0e", "validation", asked, ["rce", "sft"], taken_over)
        registry.finish_run("abc123", "done")
        assert registry.method_prompts("abc123") == {"rce": 30}
        [sample] = {c["sample"] for c in registry.cells(n=3)}
        assert [(e["sample"], e["methods"]) for e in registry.evaluations("world")] == [(sample, ["rce", "sft"])] * 2
        assert registry.runs_that_asked("world", "validation") == 1
        assert registry.sql("SELECT runs, evaluations FROM questions_asked")[1] == [(1, 2)]
        assert registry.cell_predictions("abc123", "rce", 1) == answers("rce", [1, 0, 0.6])
        first, second = (registry.scores("abc123", method, 1) for method in ("rce", "sft"))
        assert first.question_id.tolist() == second.question_id.tolist() == ["q0", "q1", "q2"]
        assert (first.accuracy.tolist(), second.accuracy.tolist()) == ([1, 0, 0.6], [0, 0, 0.3])
        assert first.sample == second.sample is not None
        assert [(c["method"], c["n"], c["seed"]) for c in registry.cells()] == [
            (m, n, 7) for m in ("rce", "sft") for n in (2, 3)
        ]
        assert [(r["method"], r["demonstrations"]) for r in registry.answers("abc123", "q0")] == [
            ("rce", ["d1"]), ("sft", ["d1"]),
        ]  # fmt: skip
        assert registry.demonstrations("abc123", ["d1"])["d1"]["answer"] == "red"
        found = registry.sql("SELECT question, answers FROM predictions_with_questions WHERE question_id = 'q0'")[1]
        assert found == [("what?", ["a", "b"])] * 2
        table = PublishedTable(("A",), (PublishedCell("A", 1, 100, "50.15", 3),))
        run_id = registry.record_published("paper", table)
        assert [(c["accuracy_text"], c["seed"]) for c in registry.cells([run_id])] == [("50.15", None)]
        with pytest.raises(RegistryError, match="already"):
            registry.record_published("paper", table)
        with pytest.raises(RegistryError, match="only read here"):
            registry.sql("DELETE FROM cells")
        with pytest.raises(RegistryError, match="does not run"):
            registry.sql("SELECT 1; DELETE FROM cells")
        with pytest.raises(RegistryError, match="does not run"):
            registry.sql("WITH x AS (DELETE FROM cells RETURNING n) SELECT n FROM x")
        assert len(registry.cells()) == 5
        assert registry.sql("SELECT '%s' AS x WHERE 'ab' LIKE '%b'")[1] == [("%s",)]
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        assert registry.sql(endless + "SELECT i FROM n", limit=2)[1] == [(1,), (2,)]
        for chosen in ("SELECT count(*) FROM n", "SELECT i FROM n", "SELECT pg_sleep(60)::text"):
            with pytest.raises(RegistryError, match=r"had not ended after 0\.2 s"):
                registry.sql(endless + chosen, seconds=0.2)


def test_runs_that_open_and_write_at_once(url: str) -> None:
    """Four processes on an empty database, with the same questions in other orders."""
    program = """
import random, sys
from leverplus_core.records import Image, Prediction, Question
from leverplus_core.registry.registry import Registry, RunRecord
registry, run = Registry(sys.argv[1]), sys.argv[2]
questions = [Question(str(i), "what?", Image(str(i)), ("a",)) for i in range(3000)]
random.Random(run).shuffle(questions)
registry.begin_run(RunRecord(run, run, run, "d", "m", 0, dataset_fingerprint="world"))
registry.record_questions(run, questions)
rows = [(i, Prediction("rce", 1, q.id, q.id, (), "", "", 1.0)) for i, q in enumerate(questions[:200])]
registry.record_cell_predictions(run, "rce", 1, rows, [100, 200])
"""
    started = [
        subprocess.Popen([sys.executable, "-c", program, url, run], stderr=subprocess.PIPE, text=True) for run in "abcd"
    ]
    assert [(p.communicate(timeout=100)[1], p.returncode) for p in started] == [("", 0)] * 4
    with Registry(url) as registry:
        assert registry.sql("SELECT count(*) FROM questions")[1] == [(3000,)]
        assert registry.finished_cells("a") == registry.finished_cells("d") == {("rce", 1)}
        assert registry.sql("SELECT count(*) FROM predictions")[1] == [(800,)]


def test_equal_runs_at_once_end_well_and_leave_the_rows_of_one(url: str) -> None:
    """Three processes write the same run on an empty database, over and over."""
    program = """
import sys
from leverplus_core.records import Image, Prediction, Question
from leverplus_core.registry.registry import Registry, RunRecord
registry, run = Registry(sys.argv[1]), "abc123"
questions = [Question(str(i), "what?", Image(str(i)), ("a",)) for i in range(50)]
asked = [(q.id, q.image.id) for q in questions]
for again in range(20):
    registry.begin_run(RunRecord(run, "demo", "f", "d", "m", 0, dataset_fingerprint="world"))
    for stage in ("sft", "rce"):
        registry.record_stage(run, stage, "0f", "running", 0.0, "p", reused=False)
        registry.record_validation_questions(run, stage, [q.id for q in questions[:20]])
        registry.beat(run, {stage: 1.0})
        registry.record_stage(run, stage, "0f", "done", 1.0, "p", reused=False, metadata={"cost": {}})
        registry.record_curve(run, stage, [(step, {"loss": 1.0}) for step in range(9)])
    registry.record_questions(run, questions)
    registry.record_evaluation(run, "0e", "validation", asked, ["rce"], taken_over=True)
    rows = [(i, Prediction("rce", 1, q.id, q.image.id, (), "", "", 1.0)) for i, q in enumerate(questions)]
    registry.record_cell_predictions(run, "rce", 1, rows, [25, 50])
    registry.record_methods(run, {"rce": 30})
    registry.finish_run(run, "done")
"""
    started = [subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE, text=True) for _ in "abc"]
    assert [(p.communicate(timeout=100)[1], p.returncode) for p in started] == [("", 0)] * 3
    with Registry(url) as registry:
        [row] = registry.runs()
        assert (row["status"], row["name"]) == ("done", "demo") and row["finished_at"] >= row["started_at"]
        assert [(s["name"], s["status"], s["position"]) for s in registry.stages("abc123")] == [
            ("sft", "done", 0), ("rce", "done", 1),
        ]  # fmt: skip
        assert [(c["n"], c["accuracy"]) for c in registry.cells(["demo"])] == [(25, 1.0), (50, 1.0)]
        assert len(registry.cell_predictions("abc123", "rce", 1)) == 50 and len(registry.curve_rows("abc123")) == 18
        assert len(registry.evaluations()) == 1 and len(registry.validation_questions("abc123")) == 20


def test_of_two_published_tables_that_take_one_name_at_once_the_second_is_refused(url: str) -> None:
    program = """
import sys
from leverplus_core.records import PublishedCell, PublishedTable
from leverplus_core.registry.registry import Registry
cells = (PublishedCell("A", 1, 100, sys.argv[2], 3),)
print(sys.stdin.readline(), end="")
try:
    Registry(sys.argv[1]).record_published("paper", PublishedTable(("A",), cells))
except Exception as e:
    sys.exit(str(e))
"""
    Registry(url).close()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, url, text], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for text in ("50.15", "50.16")
    ]
    ends = [p.communicate("go\n", timeout=100)[1] for p in started]
    [refused] = filter(None, ends)
    assert "the registry holds a run named 'paper' already" in refused
    with Registry(url) as registry:
        assert len(registry.runs()) == 1


@pytest.mark.slow
def test_drivers_with_other_executors_and_workspaces_leave_the_rows_of_one_driver_on_sqlite(
    url: str, tmp_path: Path
) -> None:
    """Two equal runs and one of another seed at once, in this process and in two workers each."""
    program = [sys.executable, "-c", "from leverplus_core.cli import main; main()"]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]

    def start(registry: str, work: str, *more: str) -> subprocess.Popen[str]:
        words = [*program, "run", *TINY, *settings, "--registry", registry, "--work", work, *more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
        )

    def ended(drivers: list[subprocess.Popen[str]]) -> None:
        told = [driver.communicate(timeout=300)[1] for driver in drivers]
        assert [driver.returncode for driver in drivers] == [0] * len(drivers), told

    for seed in ("seed=0", "seed=1"):
        ended([start("sqlite:///alone.db", "alone", "--set", seed)])
    seeds = {"here": "seed=0", "apart": "seed=0", "other": "seed=1"}
    workers = {"here": "local", "apart": "local:2", "other": "local:2"}
    ended([start(url, work, "--executor", workers[work], "--set", seed) for work, seed in seeds.items()])
    alone = registry_rows(f"sqlite:///{tmp_path / 'alone.db'}", sharing=True)
    assert list(differ("the registry", alone, registry_rows(url, sharing=True))) == []
