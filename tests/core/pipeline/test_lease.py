"""One process computes a stage: the second says on whom it waits, and takes its result."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.pipeline.lease import lease
from leverplus_core.pipeline.run import RunResult
from leverplus_core.plugins.manager import Catalog
from leverplus_core.processes import this_host
from leverplus_core.progress import Silent
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry

Tiny = Callable[..., Recipe]
HOLD = """
import sys
from pathlib import Path
from leverplus_core.pipeline.lease import lease
with lease(Path(sys.argv[1]), print):
    print(1, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_lease_of_a_process_that_was_killed_is_free(tmp_path: Path, end: signal.Signals) -> None:
    folder, told = tmp_path / "stages" / "sft-0a", list[str]()
    how = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(how, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        threading.Timer(1.0, os.kill, (other.pid, end)).start()
        with lease(folder, told.append):
            assert other.wait(60) == -end
    [line] = told
    assert line.startswith(f"process {other.pid} on {this_host().partition(':')[0]}, since 20")
    with lease(folder, told.append):
        assert len(told) == 1


def test_leases_of_different_stages_do_not_meet(tmp_path: Path) -> None:
    stages, told = tmp_path / "stages", list[str]()
    with lease(stages / "sft-0a", told.append), lease(stages / "sft-0b", told.append):
        assert told == []


class Slow(Silent):
    """Keeps what is said; the first task of a stage waits until `going` is set."""

    def __init__(self, going: threading.Event | None = None) -> None:
        self.said, self._going, self.began = list[str](), going, threading.Event()

    def say(self, message: str) -> None:
        self.said.append(message)

    def task(self, label: str, total: int) -> Any:
        if label.startswith(("stage ", "reading ")):
            return super().task(label, total)
        self.began.set()
        if self._going is not None:
            assert self._going.wait(60)
        return super().task(label, total)


def test_of_two_equal_runs_at_once_the_second_waits_says_on_whom_and_asks_nothing_twice(
    tiny: Tiny, world: Any, finished: tuple[Any, RunResult]
) -> None:
    undisturbed, whole = finished
    going, results = threading.Event(), dict[str, RunResult]()
    first, second = Slow(going), Slow()
    # As two processes, each has its own listeners.
    other = replace(world, catalog=Catalog.load([Path(__file__).parent / "tiny_parts.py"], disabled=""))

    def start(name: str, where: Any, progress: Slow) -> threading.Thread:
        thread = threading.Thread(target=lambda: results.update({name: where.run(tiny(), progress=progress)}))
        thread.start()
        return thread

    threads = [start("first", world, first)]
    assert first.began.wait(60)
    threads.append(start("second", other, second))
    while not second.said:
        time.sleep(0.05)
    going.set()
    for thread in threads:
        thread.join(100)
    assert second.said[0].startswith(f"encode: waiting for process {os.getpid()} on ")
    assert second.said[0].endswith(", which computes it")
    done = [{stage for stage, state in results[name].stages.items() if state == "done"} for name in results]
    assert done[0].isdisjoint(done[1]) and done[0] | done[1] == {s for s, v in whole.stages.items() if v == "done"}
    assert sum(result.calls for result in results.values()) == whole.calls
    assert world.results(whole.run_id) == undisturbed.results(whole.run_id)
    [row] = Registry(world.url).runs()
    assert row["status"] == "done"
