"""A registry with what a page can show: pictures, two scripts, hostile texts, a run under way, a published table."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image as Pil
from starlette.testclient import TestClient

from leverplus_core.records import Demonstration, Image, Prediction, PublishedCell, PublishedTable, Question
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.view.app import create_app
from leverplus_core.view.gate import Gate

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202e"
TEXTS = ["What color is the hat?", "帽子是什么颜色?", HOSTILE, "How many cats?", "Where is the hat?"] * 24
METHODS = {"zero_shot": (0,), "random": (1, 2), "sft": (1, 2), "rce": (1, 2)}
QUESTIONS = len(TEXTS)
ID = "a/b?c#d&e=f .."
"""Of question 1: it means something in an address, and nothing here."""


def question_id(i: int) -> str:
    return ID if i == 1 else f"q{i}"


def accuracy(method: str, i: int) -> float:
    """`random` is right on every third question, `rce` on every even one."""
    return {"random": float(i % 3 == 0), "rce": float(i % 2 == 0), "sft": 0.3, "zero_shot": 0.6}[method]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("view")


@pytest.fixture(scope="session")
def url(folder: Path) -> str:
    """The registry, written once: tests only read it."""
    url = f"sqlite:///{folder / 'r.db'}"
    Pil.new("RGB", (800, 400), "teal").save(folder / "hat.png")
    Pil.new("RGB", (200, 300), "orange").save(folder / "cat.jpg")
    (folder / "secret.txt").write_text("nobody may read this")
    with Registry(url) as registry:
        recipe = {"name": "demo", "seed": 3, "training": {"sft": {}, "rce": {}}, "note": HOSTILE}
        run = RunRecord(
            "run1", "demo", "f1", "okvqa", "qwen", 3, recipe=recipe, dataset_fingerprint="w", note=HOSTILE,
            parts=[{"kind": "sampler", "name": "random", "distribution": "lever", "version": "0.1", "code": "0a1b"}],
            environment={"python": "3.11", "packages": {"torch": "2.6"}},
            git={"commit": "0123456789abcdef", "dirty": True}, planned=["encode", "sft", "rce", "evaluate"],
        )  # fmt: skip
        registry.begin_run(run)
        files = {3: None, 4: str(folder / "gone.png")}
        answers = ("red",) * 9 + ("blue",)
        asked = [
            Question(question_id(i), text, Image(f"i{i}", files.get(i, str(folder / "hat.png"))), answers)
            for i, text in enumerate(TEXTS)
        ]
        shown = [
            Demonstration("d1", "Which animal?", Image("c", str(folder / "cat.jpg"), "a cat"), "cat"),
            Demonstration("d2", HOSTILE, Image("t", str(folder / "secret.txt")), HOSTILE),
        ]  # fmt: skip
        registry.record_questions("run1", asked, shown)
        for method, every in METHODS.items():
            for shots in every:
                rows = [
                    (i, Prediction(method, shots, question_id(i), f"i{i}", ("d1", "d2")[:shots],
                                   HOSTILE if i == 2 else " red Question: why", "red", accuracy(method, i), i == 0))
                    for i in range(QUESTIONS)
                ]  # fmt: skip
                registry.record_cell_predictions("run1", method, shots, rows, [60, QUESTIONS])
        for stage in ("encode", "sft", "rce"):
            cost = {"cost": {"seconds": 70.0, "prompts": 1234, "asked": 5678}}
            kept = {"chosen_epoch": 4} if stage == "rce" else {}
            registry.record_stage("run1", stage, "f", "done", 70.0, "", reused=stage == "encode", metadata=cost | kept)
        registry.record_curve("run1", "rce", [(e, {"loss": 1 / (e + 1), "accuracy": e / 9}) for e in range(9)])
        registry.label_run("run1", "looks good", add=["best"])
        registry.finish_run("run1", "done")
        cells = tuple(PublishedCell(m, s, 100, t, 3) for m, s, t in (("Baseline", 1, "50.15"), ("Merged", 1, "50.150")))
        registry.record_published("paper", PublishedTable(("Baseline", "Merged"), cells))
        registry.begin_run(RunRecord("run2", "under way", "f2", "okvqa", "qwen", 4, planned=["encode", "sft"]))
        registry.record_stage("run2", "encode", "f", "running", 0.0, "", reused=False)
        registry.beat("run2", {"encode": 3.0}, {"encode": {"label": "images", "done": 250, "total": 1000}})
    return url


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[TestClient]:
    """Asks the application as a browser on this machine does."""
    yield TestClient(Gate(create_app(url), "127.0.0.1", None), "http://127.0.0.1", follow_redirects=False)


@pytest.fixture(scope="session")
def page(client: TestClient) -> Callable[[str], str]:
    """The text of a page that is there."""

    def page(address: str) -> str:
        answer = client.get(address, follow_redirects=True)
        assert answer.status_code == 200, (address, answer.text[-500:])
        return answer.text

    return page


@dataclass(frozen=True)
class Served:
    """`leverplus view --token` in a process of its own, over a registry that tests may write to."""

    address: str
    token: str
    registry: Registry


@pytest.fixture(scope="session")
def served(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Ends as its user ends it, by Ctrl-C, without a trace."""
    file = tmp_path_factory.mktemp("served") / "live.db"
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("VACUUM INTO ?", (str(file),))
    words = ["view", "--token", "--port", "0", "--registry", f"sqlite:///{file}"]
    command = [sys.executable, "-c", "from leverplus_core.cli import main; main()", *words]
    environment = {**os.environ, "NO_COLOR": "1"}
    with (
        Registry(f"sqlite:///{file}") as registry,
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process,
    ):
        assert process.stderr is not None
        told = process.stderr.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+)/\?token=(\S+)  ?\(Ctrl-C ends it\)", told)
        assert found, told
        assert "who has this address" in process.stderr.readline()
        try:
            yield Served(found[1], found[2], registry)
        finally:
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=30)[1]
    assert (process.returncode, rest) == (0, "ended\n")
