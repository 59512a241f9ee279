"""Each question's frozen pool on disk, as stages and imported folders write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from leverplus_core.io import read_json

POOLS = "pools.json"
"""Split -> question id -> demonstration ids."""


def read_pools(folder: Path) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """Split -> question id -> demonstration ids. Raises DataError for a file that is absent or damaged."""
    pools: Mapping[str, Mapping[str, Sequence[str]]] = read_json(folder / POOLS, f"Delete {folder} and run again.")
    return pools


def all_pools(folder: Path) -> dict[str, Sequence[str]]:
    """Question id -> demonstration ids, of both splits."""
    return {question: ids for pools in read_pools(folder).values() for question, ids in pools.items()}
