"""What an imported folder holds, by file name, and how its lines are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import ijson

POOLS, BEAMS, FEATURES, SUMMARY = "pools.json", "beams.jsonl", "features.npz", "summary.json"
"""Read by training, beside `groups.CANDIDATES`."""
ORIGINALS, BEAM_ORIGINALS, EMBEDDINGS = "originals.jsonl", "beam-originals.jsonl", "query_embeddings.npy"
"""All that the source files hold: `{"key", "id", "value"}` for each entry, and the rows of the tensor."""
TEXTS, BEAM_POOLS = "texts.jsonl", "beam-pools.json"
"""What derived files are made again from: question texts, and the pools that only the beams gave."""
META = "_meta"


def to_json(value: object) -> str:
    """Compact, keys in the order they have (`files.canonical` would sort them)."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def write_line(f: BinaryIO, value: object) -> None:
    f.write((to_json(value) + "\n").encode())


class PoolWriter:
    """pools.json as stages write it, a question a line and one at a time; `with PoolWriter(f) as pools: pools.add()`"""

    def __init__(self, f: BinaryIO) -> None:
        self._f, self._before = f, "\n"

    def __enter__(self) -> PoolWriter:
        self._f.write(b'{"train": {')
        return self

    def add(self, question_id: str, pool: list[str]) -> None:
        self._f.write(f"{self._before}{to_json(question_id)}: {to_json(pool)}".encode())
        self._before = ",\n"

    def __exit__(self, *_: object) -> None:
        self._f.write(b'\n},\n"validation": {}}\n')


def iter_pools(path: Path) -> Iterator[tuple[str, list[str]]]:
    """(question id, pool) of the train questions, one at a time."""
    with path.open("rb") as f:
        yield from ijson.kvitems(f, "train")
