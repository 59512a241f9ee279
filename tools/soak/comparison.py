"""What a folder and a registry hold, without what differs between equal runs, so that two can be compared."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import create_engine, select

from leverplus_core.registry import tables

LEFT_OUT = {
    "created_at", "started_at", "finished_at", "alive_at", "asked_at", "pid", "host", "environment", "git", "seconds",
    "reused", "created", "path",
}  # fmt: skip
"""Columns and keys that differ between equal runs: when, where and how long."""


def differ(what: str, expected: Mapping[Any, Any], found: Mapping[Any, Any]) -> Iterator[str]:
    """A line for what is missing, for what is there besides, and for what is otherwise."""
    for state, keys in (("lacks", expected.keys() - found.keys()), ("has besides", found.keys() - expected.keys())):
        if keys:
            yield f"{what} {state} {len(keys)}, such as {min(map(str, keys))[:200]}"
    other = [key for key in expected.keys() & found.keys() if expected[key] != found[key]]
    if other:
        key = min(other, key=str)
        yield f"{what}: {len(other)} differ, such as {key}: {str(found[key])[:200]} for {str(expected[key])[:200]}"


def registry_rows(url: str, sharing: bool = False) -> Counter[tuple[str, str]]:
    """(table, row as JSON) -> how often it is there; of evaluations, which each attempt adds to, whether it is.

    Runs that are `sharing` a workspace at once divide the prompts between them as it happens: these are left out."""
    rows, engine = Counter[tuple[str, str]](), create_engine(url)
    with engine.connect() as c:
        for table in tables.metadata.sorted_tables:
            for row in map(dict, c.execute(select(table)).mappings()):
                if sharing and table is tables.stages and row["metadata"]:
                    row["metadata"]["cost"].pop("prompts", None)
                key = table.name, json.dumps(_same(row), sort_keys=True)
                rows[key] = 1 if table is tables.evaluations else rows[key] + 1
    engine.dispose()
    return rows


def _same(value: Any) -> Any:
    """`value` without what differs between equal runs, the number of an evaluation among it."""
    if isinstance(value, dict):
        return {k: _same(v) for k, v in value.items() if k not in LEFT_OUT and not (k == "id" and isinstance(v, int))}
    return [_same(v) for v in value] if isinstance(value, list | tuple) else value


def responses(work: Path) -> dict[str, str]:
    """Key -> response, of the cache of a workspace."""
    file = work / "responses.sqlite"
    if not file.exists():
        return {}
    with sqlite3.connect(file) as c:
        there = c.execute("SELECT count(*) FROM sqlite_master WHERE name = 'responses'").fetchone()[0]
        found = {key.hex(): value for key, value in c.execute("SELECT key, value FROM responses")} if there else {}
    c.close()
    return found


def damaged(folder: Path) -> Iterator[str]:
    """A line for each SQLite file that is not whole."""
    for file in (*folder.rglob("*.db"), *folder.rglob("*.sqlite")):
        with sqlite3.connect(file) as c:
            state = c.execute("PRAGMA integrity_check").fetchone()[0]
        c.close()
        if state != "ok":
            yield f"{file.name} is damaged: {state}"


def files(folder: Path) -> dict[str, Any]:
    """Name -> content; databases, leases and the scratch files of reports and of cached image features aside."""
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        scratch = re.search(r"^\.[^/]+\.\d+$|^work/cache/.*/\.[^/]+\.\d+$", name)
        if file.is_dir() or scratch or re.search(r"\.(db|sqlite)(-wal|-shm)?$|^work/leases/", name):
            continue
        content: Any = file.read_bytes()
        if file.suffix == ".json":
            content = _same(json.loads(content))
        elif file.suffix == ".safetensors":
            content = _Tensors.read(content, 1e-4 if name.startswith("work/cache/") else 0.0)
        elif file.name in ("asked.bin", "computed.bin"):
            content = sorted(content[i : i + 8] for i in range(0, len(content), 8))
        found[name] = content
    return found


@dataclass(frozen=True, eq=False)
class _Tensors:
    """The tensors of a file. Numbers of a cached image may differ in their last bits: a resumed batch holds others."""

    shapes: Any
    values: bytes
    tolerance: float

    @classmethod
    def read(cls, content: bytes, tolerance: float) -> _Tensors:
        end = 8 + int.from_bytes(content[:8], "little")
        shapes = json.loads(content[8:end])
        if tolerance:
            shapes.pop("__metadata__", None)  # holds a checksum
        return cls(shapes, content[end:], tolerance)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Tensors) or self.shapes != other.shapes:
            return False
        if not self.tolerance:
            return self.values == other.values
        mine, its = (np.frombuffer(tensors.values, np.float32) for tensors in (self, other))
        return np.allclose(mine, its, rtol=self.tolerance, atol=self.tolerance)
