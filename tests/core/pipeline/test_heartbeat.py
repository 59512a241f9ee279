from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.errors import RegistryError
from leverplus_core.io import read_json
from leverplus_core.pipeline.heartbeat import Heartbeat
from leverplus_core.pipeline.run import COST
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry

Tiny = Callable[..., Recipe]


def test_it_beats_until_its_block_ends_whatever_a_beat_raises() -> None:
    enough, beats, kept = threading.Event(), list[int](), list[int]()

    def beat() -> None:
        beats.append(len(kept))
        if len(beats) > 3:
            enough.set()
        raise RegistryError("the registry is locked.")

    with Heartbeat(beat, period=0.01) as heart:
        with heart.during(lambda: kept.append(len(beats))):
            assert enough.wait(60)
        during, count = len(kept), len(beats)
        assert during >= count > 3 and beats[-1] > 0
        enough.clear()
        beats.clear()
        assert enough.wait(60) and len(kept) == during
    count = len(beats)
    assert threading.active_count() == 1 or "heartbeat" not in {t.name for t in threading.enumerate()}
    assert len(beats) == count


def test_what_is_kept_is_kept_once_more_when_its_block_fails() -> None:
    kept = list[int]()
    with pytest.raises(ZeroDivisionError), Heartbeat(lambda: None) as heart, heart.during(lambda: kept.append(1)):
        raise ZeroDivisionError
    assert kept == [1]


PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
from leverplus_core import Catalog, Recipe, run
from leverplus_core.registry import liveness
from leverplus_core.pipeline import heartbeat
from leverplus_core.progress import Silent

class Hang(Silent):
    def task(self, label, total):
        if label.startswith("evaluate"):
            print("hangs", flush=True)
            time.sleep(60)
        return super().task(label, total)

recipe, url, work, plugin = sys.argv[1:]
run(Recipe.of(json.loads(recipe)), url, work, catalog=Catalog.load([Path(plugin)], disabled=""), progress=Hang())
"""


def test_a_run_that_is_killed_is_interrupted_and_its_seconds_survive(tiny: Tiny, world: Any) -> None:
    plugin = Path(__file__).parent / "tiny_parts.py"
    arguments = [tiny().model_dump_json(), world.url, str(world.work), str(plugin)]
    with subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"hangs\n"
        registry = Registry(world.url)
        [row] = registry.runs()
        assert (row["status"], row["pid"]) == ("running", process.pid)
        assert row["planned"] == [s["name"] for s in registry.stages(row["id"])]  # it is at the last one
        while True:
            [evaluate] = [s for s in registry.stages(row["id"]) if s["name"] == "evaluate"]
            if evaluate["seconds"] > 0:
                break
        assert evaluate["status"] == "running"
        os.kill(process.pid, signal.SIGKILL)
    [row] = registry.runs()
    stages = {s["name"]: s for s in registry.stages(row["id"])}
    assert row["status"] == stages["evaluate"]["status"] == "interrupted" and stages["sft"]["status"] == "done"
    [folder] = world.work.glob("stages/evaluate-*")
    kept = read_json(folder / COST)["seconds"]
    assert kept == stages["evaluate"]["seconds"] > 0
    # Another run stores what readers see; the same goes on, and its seconds are those of both attempts.
    world.run(tiny("name=other", "seed=3"), until="encode")
    assert registry.sql(f"SELECT status FROM runs WHERE id = '{row['id']}'")[1] == [("interrupted",)]
    world.run(tiny())
    [row, other] = registry.runs()
    assert (row["status"], other["status"], other["name"]) == ("done", "partial", "other")
    stages = {s["name"]: s for s in registry.stages(row["id"])}
    assert stages["evaluate"]["seconds"] > kept and not stages["evaluate"]["reused"]
    assert stages["sft"]["reused"] and stages["sft"]["seconds"] == stages["sft"]["metadata"]["cost"]["seconds"] > 0
