"""What a user says about runs, and the end of one: names, tags, notes, and its removal."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, or_, select, update

from leverplus_core.errors import RegistryError
from leverplus_core.registry import tables
from leverplus_core.registry.database import insert

OF_A_RUN = ("labels", "stages", "curves", "validation_questions", "predictions", "cells", "methods")
"""The tables whose rows go with their run. Those of `evaluations` stay: that questions were asked cannot be undone."""


def check_name(name: str) -> None:
    """Raise RegistryError for what could be mistaken for something else, or has no place."""
    if not name.strip() or ":" in name or name == "latest" or len(name) > 190:
        raise RegistryError(
            f"a run cannot be named '{name}'.",
            "A name is not empty, not 'latest', has no ':' and up to 190 characters.",
        )


def rename(c: Connection, run_id: str, name: str) -> None:
    """Raises RegistryError for a name that is another run's name or id, or that `check_name` refuses."""
    check_name(name)
    t = tables.runs
    if c.execute(select(t.c.id).where(or_(t.c.name == name, t.c.id == name), t.c.id != run_id)).first():
        raise RegistryError(f"the registry holds a run named '{name}' already.", "Choose another name.")
    c.execute(update(t).where(t.c.id == run_id).values(name=name))
    _put(c, run_id, name=name)


def put(c: Connection, run_id: str, note: str | None, add: set[str], remove: set[str]) -> dict[str, Any]:
    """Replace the note where one is given, and change the tags; the run's labels afterwards."""
    known = labels(c).get(run_id, {"note": "", "tags": []})
    tags = sorted((set(known["tags"]) | add) - remove)
    found = {"note": known["note"] if note is None else note, "tags": tags}
    _put(c, run_id, **found)
    return found


def labels(c: Connection) -> dict[str, dict[str, Any]]:
    """run id -> its note and tags, of the runs that have either."""
    t = tables.labels.c
    rows = c.execute(select(t.run_id, t.note, t.tags))
    return {run_id: {"note": note, "tags": list(tags)} for run_id, note, tags in rows}


def remove(c: Connection, run_id: str) -> None:
    """Delete the run and what only it needs: its results, and its questions' texts where no other run has them."""
    of = tables.runs.c
    dataset = c.execute(select(of.dataset_fingerprint).where(of.id == run_id)).scalar()
    for name in OF_A_RUN:
        table = tables.metadata.tables[name]
        c.execute(delete(table).where(table.c.run_id == run_id))
    c.execute(delete(tables.runs).where(of.id == run_id))
    if not c.execute(select(of.id).where(of.dataset_fingerprint == dataset)).first():
        for table in (tables.questions, tables.demonstrations):
            c.execute(delete(table).where(table.c.dataset_fingerprint == dataset))


def _put(c: Connection, run_id: str, **values: Any) -> None:
    t = tables.labels
    add = insert(c, t).values({"run_id": run_id, "note": "", "tags": [], **values})
    c.execute(add.on_conflict_do_update(index_elements=[t.c.run_id], set_={key: add.excluded[key] for key in values}))
