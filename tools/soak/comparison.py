"""What a folder and a registry hold, without what differs between equal runs, so that two can be compared."""

from __future__ import annotations

import io
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
    "reused", "created", "path", "execution",
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
        elif file.suffix == ".safetensors":  # a header in any order, behind its length in eight bytes
            end = 8 + int.from_bytes(content[:8], "little")
            content = (json.loads(content[8:end]), content[end:])
            if name.startswith("work/cache/"):
                content = _Near({"features": np.frombuffer(content[1], np.float32)})
        elif file.suffix == ".npz":
            with np.load(io.BytesIO(content)) as arrays:
                content = _Near(dict(arrays))
        elif file.name in ("asked.bin", "computed.bin"):
            content = sorted(content[i : i + 8] for i in range(0, len(content), 8))
        found[name] = content
    return found


@dataclass(frozen=True, eq=False)
class _Near:
    """Arrays whose numbers may differ in their last bits: where the encoding of images was killed, a batch of the model
    holds other images the second time."""

    arrays: Mapping[str, Any]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Near) or self.arrays.keys() != other.arrays.keys():
            return False
        return all(_near(array, other.arrays[name]) for name, array in self.arrays.items())


def _near(a: Any, b: Any) -> bool:
    exact = a.dtype.kind != "f" or a.shape != b.shape
    return np.array_equal(a, b) if exact else np.allclose(a, b, rtol=1e-4, atol=1e-4)
