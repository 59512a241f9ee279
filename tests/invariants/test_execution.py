"""Whoever computes the prompts, a run ends with the same registry: one process, several, one of them killed, or Ray."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.pipeline.run import run
from leverplus_core.progress import Silent
from leverplus_core.recipes.recipe import Recipe

Small = Callable[..., Recipe]
RESULTS = {
    "cells": "method, shots, n, accuracy, ci_low, ci_high",
    "predictions": "method, shots, question_id, position, demonstrations, raw_text, prediction, accuracy, copied",
    "curves": "*",
    "validation_questions": "*",
    "stages": "name, fingerprint, status",
}


class Said(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def _registry(file: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(file)) as db:
        return {
            table: sorted(db.execute(f"SELECT {columns} FROM {table}").fetchall(), key=repr)
            for table, columns in RESULTS.items()
        }


def _responses(work: Path) -> dict[bytes, str]:
    with closing(sqlite3.connect(work / "responses.sqlite")) as db:
        return dict(db.execute("SELECT key, value FROM responses").fetchall())


def _workers() -> list[int]:
    """The worker processes that this process has started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            words = (process / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if parent == os.getpid() and b"execution.processes" in words:
            found.append(int(process.name))
    return found


@contextmanager
def _killing(seed: int, killed: list[int]) -> Iterator[None]:
    """Kills one worker of this process, at a random moment after it has begun to compute."""
    over = threading.Event()

    def kill() -> None:
        workers: list[int] = []
        while len(workers) < 2 and not over.wait(0.05):
            workers = _workers()
        draw = random.Random(seed)
        if not over.wait(draw.uniform(0.5, 8)):
            killed.append(draw.choice(workers))
            os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _check(finished: Any, folder: Path, recipe: Recipe, seed: int | None) -> list[str]:
    """A run of `recipe` in an empty folder ends with the registry and the responses of one process."""
    said, killed = Said(), list[int]()
    url, work = f"sqlite:///{folder}/r.db", folder / "work"
    if seed is None:
        run(recipe, url, work, progress=said)
    else:
        with _killing(seed, killed):
            run(recipe, url, work, progress=said)
        lost = [line for line in said.lines if "was killed by signal 9" in line]
        assert len(killed) == 1 and len(lost) <= 1  # none where it was idle
    assert _registry(folder / "r.db") == _registry(finished.folder / "r.db")
    alone, found = _responses(finished.work), _responses(work)
    assert {key: alone[key] for key in found} == found, "to the last bit"
    assert not _workers()
    return said.lines


def test_two_processes_one_of_them_killed_end_with_the_registry_of_one(
    finished: Any, small: Small, tmp_path: Path
) -> None:
    recipe = small("execution=local:2")
    assert recipe.fingerprint() == small().fingerprint()
    lines = _check(finished, tmp_path, recipe, seed=0)
    assert any(line.startswith("local:2: worker 1") and "worker 2" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_a_worker_killed_at_any_moment_changes_nothing(finished: Any, small: Small, tmp_path: Path, seed: int) -> None:
    _check(finished, tmp_path, small("execution=local:2"), seed)


@pytest.mark.slow
def test_a_ray_of_this_machine_ends_with_the_registry_of_one_process(
    finished: Any, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    lines = _check(finished, tmp_path, small("execution=ray:2"), seed=None)
    assert any(line.startswith("ray:2: worker 1") for line in lines)
