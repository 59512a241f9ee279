"""The registry on a real PostgreSQL server, where there are the programs to start one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from leverplus_core.errors import RegistryError
from leverplus_core.records import Demonstration, Image, Prediction, PublishedCell, PublishedTable, Question
from leverplus_core.registry.registry import Registry, RunRecord

pytest.importorskip("psycopg")
if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
    pytest.skip("no PostgreSQL server here", allow_module_level=True)
if os.geteuid() == 0 and shutil.which("setpriv") is None:
    pytest.skip("PostgreSQL does not run as root", allow_module_level=True)

RUN = RunRecord("abc123", "demo", "f", "demo_world", "qwen", 7, {"seed": 7}, dataset_fingerprint="world")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The options of a URL that reach a server in a folder of its own; no port is opened."""
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder = Path(name)
        as_user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
            as_user = ["setpriv", "--reuid=nobody", "--clear-groups"]

        def call(*words: str) -> None:
            done = subprocess.run(
                [*as_user, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            assert done.returncode == 0, done.stderr

        data = str(folder / "data")
        call("initdb", "-D", data, "-U", "leverplus", "-A", "trust", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        call("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"host={folder}"
        finally:
            call("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """An empty database of the test's own."""
    name = f"test_{abs(hash(request.node.name))}"
    engine = create_engine(f"postgresql+psycopg://leverplus@/postgres?{server}", isolation_level="AUTOCOMMIT")
    with engine.connect() as c:
        c.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return f"postgresql+psycopg://leverplus@/{name}?{server}"


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
        assert registry.predictions("abc123", "rce", 1) == answers("rce", [1, 0, 0.6])
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
