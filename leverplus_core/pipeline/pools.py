"""Each question's frozen pool on disk, as stages and imported folders write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from leverplus_core.errors import DataError
from leverplus_core.io import read_json

POOLS = "pools.json"
"""Split -> question id -> demonstration ids."""


def read_pools(folder: Path) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """Split -> question id -> demonstration ids. Raises DataError for a file that is absent or damaged."""
    hint = f"Delete {folder} and run again."
    pools: Mapping[str, Mapping[str, Sequence[str]]] = read_json(folder / POOLS, hint)
    if not (isinstance(pools, dict) and all(isinstance(of_split, dict) for of_split in pools.values())):
        raise DataError(f"{folder / POOLS} does not hold pools by split and question.", hint)
    return pools


def all_pools(folder: Path) -> dict[str, Sequence[str]]:
    """Question id -> demonstration ids, of both splits."""
    return {question: ids for pools in read_pools(folder).values() for question, ids in pools.items()}
