"""What the folder of artifacts holds, by kind, and what is removed of it."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.errors import StorageError
from leverplus_core.pipeline.lease import lease
from leverplus_core.pipeline.run import RunResult
from leverplus_core.pipeline.storage import IMAGES, RESPONSES, by_kind, folders_of, older_than, stored
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.scoring.cache import ResponseCache


def write(file: Path, size: int, days: float = 0.0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * size)
    os.utime(file, (at := time.time() - days * 86_400, at))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    write(tmp_path / "stages" / "sft-0a" / "policy.bin", 100, days=10)
    write(tmp_path / "stages" / "sft-0a" / "provenance.json", 20, days=9)
    write(tmp_path / "stages" / "sft-0b" / "deeper" / "policy.bin", 50, days=1)
    write(tmp_path / "stages" / "beam_search-0c" / "beams.jsonl", 400, days=20)
    write(tmp_path / "responses.sqlite", 300, days=12)
    write(tmp_path / "responses.sqlite-wal", 30, days=2)
    write(tmp_path / "cache" / "images" / "one.bin", 7, days=30)
    return tmp_path


def test_sizes_by_kind_the_largest_first(work: Path) -> None:
    found = {kind: (len(things), sum(t.bytes for t in things)) for kind, things in by_kind(stored(work)).items()}
    assert list(found.items()) == [
        ("beam_search", (1, 400)),
        (RESPONSES, (1, 330)),
        ("sft", (2, 170)),
        (IMAGES, (1, 7)),
    ]
    assert stored(work / "absent") == []


def test_age_counts_from_the_last_file_that_was_written(work: Path) -> None:
    def old(days: float) -> set[str]:
        return {thing.path.name for thing in older_than(stored(work), days)}

    assert old(25) == {"one.bin"} and old(15) == {"one.bin", "beam_search-0c"}
    assert old(8) == {"one.bin", "beam_search-0c", "sft-0a"}, "responses were added to two days ago"
    assert len(old(0)) == 5
    for thing in older_than(stored(work), 0):
        thing.remove()
    assert stored(work) == [] and not (work / "responses.sqlite-wal").exists()


def test_of_responses_that_are_added_to_the_old_ones_are_removed(tmp_path: Path) -> None:
    file, today = tmp_path / "responses.sqlite", int(time.time() // 86_400)
    with closing(ResponseCache(file)) as cache:
        cache.put([(b"%04d" % i, '"' + "a" * 98 + '"') for i in range(1000)])
    with closing(sqlite3.connect(file)) as db, db:
        assert db.execute("SELECT DISTINCT day FROM responses").fetchall() in ([(today,)], [(today + 1,)])
        db.execute("UPDATE responses SET day = ? WHERE key < ?", (today - 40, b"0900"))
        db.execute("UPDATE responses SET day = NULL WHERE key >= ?", (b"0990",))  # computed before days were kept
    before = file.stat().st_size

    assert older_than(stored(tmp_path), 60) == []
    [old] = older_than(stored(tmp_path), 30)
    assert (old.kind, old.number, old.bytes) == (RESPONSES, 900, 900 * (4 + 100))
    old.remove()
    assert older_than(stored(tmp_path), 30) == [] and file.stat().st_size < before / 4
    with closing(ResponseCache(file)) as cache:
        assert set(cache.get([b"0000", b"0899", b"0900", b"0999"])) == {b"0900", b"0999"}


def test_a_stage_that_is_being_computed_is_not_removed(work: Path) -> None:
    [thing] = [t for t in stored(work) if t.path.name == "sft-0b"]
    with lease(thing.path, print), pytest.raises(StorageError, match=rf"is being computed by process {os.getpid()}"):
        thing.remove()
    thing.remove()
    assert not thing.path.exists()


def test_only_what_no_other_run_has_belongs_to_a_run(work: Path, tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    one = RunRecord("aaa", "one", "f", "d", "m", 0)
    imported = work / "my-data"
    write(imported / "features.npy", 10)
    for run, stages in ((one, ("sft-0a", "beam_search-0c")), (replace(one, id="bbb", name="two"), ("beam_search-0c",))):
        registry.begin_run(run)
        for stage in stages:
            name, _, print_ = stage.partition("-")
            registry.record_stage(run.id, name, print_, "done", 1.0, str(work / "stages" / stage), False)
        registry.record_stage(run.id, "pool", "x", "done", 0.0, str(imported), True)
    assert [t.path.name for t in folders_of(registry, ["aaa"])] == ["sft-0a"]
    assert folders_of(registry, ["bbb"]) == []
    assert {t.path.name for t in folders_of(registry, ["aaa", "bbb"])} == {"sft-0a", "beam_search-0c"}


def test_a_run_whose_folders_were_removed_computes_them_again(tiny: Any, finished: tuple[Any, RunResult]) -> None:
    world, whole = finished
    before = world.results(whole.run_id)
    with Registry(world.url) as registry:
        folders = folders_of(registry, [whole.run_id])
    for folder in folders:
        if str(world.work) in str(folder.path):
            folder.remove()
    assert world.run(tiny()).stages["evaluate"] in ("done", "reused") and world.results(whole.run_id) == before
