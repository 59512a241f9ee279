"""A registry in another database: every row, and proof that none was changed on its way."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select

from leverplus_core.errors import RegistryError
from leverplus_core.registry import tables
from leverplus_core.registry.database import shown

CHUNK = 2000
"""Rows of a table in memory at once."""
PARTS = {"yield_per": CHUNK}


def copy(source: Connection, target: Connection) -> dict[str, int]:
    """Copy all rows of `source` into `target`, in whose transaction nothing remains of a copy that fails.

    The rows of each table are read again from the target and compared by their hashes. Returns table -> rows. Raises
    RegistryError where the target has runs, or holds other rows than the source afterwards.
    """
    where = shown(target.engine.url)
    if target.execute(select(tables.runs.c.id)).first() or target.execute(select(tables.evaluations.c.id)).first():
        raise RegistryError(f"registry {where} is not empty.", "Copy into a new database.")
    counts: dict[str, int] = {}
    for table in tables.metadata.sorted_tables:
        if table is tables.schema_version:
            continue
        hashed = _Hashed()
        for part in source.execute(select(table), execution_options=PARTS).mappings().partitions(CHUNK):
            rows = [dict(row) for row in part]
            hashed.add(rows)
            target.execute(insert(table), rows)
        if table is tables.evaluations and hashed.rows:
            _count_on(target, table)
        if hashed != _read_again(target, table):
            raise RegistryError(f"table {table.name} of {where} differs from its source.", "Nothing was copied.")
        counts[table.name] = hashed.rows
    return counts


class _Hashed:
    """How many rows, and the sum of their hashes, whatever their order: databases sort text differently."""

    def __init__(self) -> None:
        self.rows, self.sum = 0, 0

    def add(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            text = json.dumps(row, sort_keys=True)
            self.sum += int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        self.rows += len(rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and (self.rows, self.sum) == (other.rows, other.sum)

    __hash__ = None  # type: ignore[assignment]


def _read_again(c: Connection, table: Table) -> _Hashed:
    found = _Hashed()
    for part in c.execute(select(table), execution_options=PARTS).mappings().partitions(CHUNK):
        found.add([dict(row) for row in part])
    return found


def _count_on(c: Connection, table: Table) -> None:
    """PostgreSQL numbers new rows from a counter of its own, which rows with numbers do not move."""
    if c.dialect.name == "postgresql":
        last = select(func.max(table.c.id)).scalar_subquery()
        c.execute(select(func.setval(func.pg_get_serial_sequence(table.name, "id"), last)))
