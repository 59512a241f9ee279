"""A published table as a run of the registry: results without predictions."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from sqlalchemy import Connection, insert, or_, select

from leverplus_core.errors import RegistryError
from leverplus_core.records import PublishedTable
from leverplus_core.registry import tables
from leverplus_core.registry.database import alone
from leverplus_core.statistics import published_interval

PROTOCOL = "published table, no predictions; intervals are what n implies (Wilson), conservative for graded accuracies"


def insert_published(
    c: Connection, name: str, table: PublishedTable, dataset: str, model: str, note: str, source: str
) -> str:
    """Write `table` as the finished run `name` in the transaction that `c` is in; returns the run's id.

    Raises RegistryError for a name that is taken, or could be mistaken for part of `RUN:METHOD`.
    """
    alone(c)  # of two that take one name at once, the second is refused
    known = tables.runs.c
    choose = "Choose another with --name."
    if not name.strip() or ":" in name or name == "latest" or len(name) > 190:
        raise RegistryError(
            f"a published table cannot be named '{name}'.", f"{choose} It has no ':' and is not 'latest'."
        )
    if c.execute(select(known.id).where(or_(known.name == name, known.id == name))).first():
        raise RegistryError(f"the registry holds a run named '{name}' already.", choose)
    content = "\n".join([name, *(f"{x.method}\t{x.shots}\t{x.n}\t{x.text}" for x in table.cells)])
    fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]
    run_id = fingerprint[:12]
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    c.execute(
        insert(tables.runs).values(
            id=run_id, name=name, fingerprint=fingerprint, status="done", dataset=dataset, model=model, seed=0,
            recipe={"published": {"file": source, "methods": list(table.methods)}}, parts=[], environment={}, git={},
            note=". ".join(filter(None, (note.rstrip("."), PROTOCOL))), created_at=now, started_at=now, finished_at=now,
            source="published",
        )
    )  # fmt: skip
    rows = []
    for cell in table.cells:
        i = published_interval(cell.accuracy, cell.n)
        rows.append({
            "run_id": run_id, "method": cell.method, "shots": cell.shots, "n": cell.n, "accuracy": cell.accuracy,
            "ci_low": i.low, "ci_high": i.high, "accuracy_text": cell.text,
        })  # fmt: skip
    c.execute(insert(tables.cells), rows)
    return run_id
