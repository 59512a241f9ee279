"""The rows of `runs`: their beginning, heartbeat and end, those that never came to one, and which one a text names."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, select, update

from leverplus_core.errors import LeverplusWarning, RegistryError, did_you_mean
from leverplus_core.processes import this_host
from leverplus_core.registry import tables
from leverplus_core.registry.database import MAKE_ONE, insert
from leverplus_core.registry.liveness import is_interrupted

ENDINGS = ("done", "partial", "stopped", "failed")
"""How a call of a run ends: complete, after the stage that it was told, by the user, with an error. A run that does not
come to its end is `interrupted`."""


def now() -> str:
    """This moment, as the registry writes it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def begin(c: Connection, values: Mapping[str, Any]) -> None:
    """Add the run or replace what `values` have; those that are interrupted are recorded as such."""
    t, began = tables.runs, now()
    new = {**values, "status": "running", "started_at": began, "finished_at": None, "source": "run", **_heard_of(began)}
    add = insert(c, t).values(created_at=began, **new)
    c.execute(add.on_conflict_do_update(index_elements=[t.c.id], set_={k: add.excluded[k] for k in new}))
    named = select(tables.labels.c.name).where(tables.labels.c.run_id == values["id"])
    if name := c.execute(named).scalar():
        c.execute(update(t).where(t.c.id == values["id"]).values(name=name))
    if gone := interrupted(c):
        ended = {"status": "interrupted", "finished_at": t.c.alive_at}
        c.execute(update(t).where(t.c.id.in_(gone)).values(ended))


def beat(
    c: Connection, run_id: str, seconds: Mapping[str, float], progress: Mapping[str, Mapping[str, Any] | None]
) -> None:
    """This process still runs the run; `seconds`: what the stages that it is at have taken so far; `progress`: label,
    done and total of what they are at, None where that is not known."""
    runs, stages = tables.runs, tables.stages
    running = {"status": "running", "finished_at": None, **_heard_of(now())}
    c.execute(update(runs).where(runs.c.id == run_id, runs.c.status != "done").values(running))
    for name, taken in seconds.items():
        at = (stages.c.run_id == run_id, stages.c.name == name, stages.c.status == "running")
        c.execute(update(stages).where(*at).values(seconds=taken, progress=progress.get(name)))


def finish(c: Connection, run_id: str, status: str) -> None:
    """Set the status of the run, and of a stage that it did not finish."""
    runs, stages = tables.runs, tables.stages
    ended = update(runs).where(runs.c.id == run_id).values(status=status, finished_at=now())
    if c.execute(ended).rowcount == 0:
        raise RegistryError(f"no run {run_id} in the registry.", "Begin the run before writing to it.")
    left = update(stages).where(stages.c.run_id == run_id, stages.c.status == "running")
    c.execute(left.values(status=status))


def interrupted(c: Connection) -> list[str]:
    """The runs that are recorded as running and are not."""
    t = tables.runs.c
    running = c.execute(select(t.id, t.status, t.host, t.pid, t.alive_at).where(t.status == "running")).mappings()
    moment = datetime.now(UTC)
    return [str(row["id"]) for row in map(dict, running) if is_interrupted(row, moment)]


def refuse_running(c: Connection, run_id: str) -> None:
    """Raise RegistryError where the run is running, and its process has not ended."""
    t = tables.runs.c
    row = c.execute(select(t.status, t.name).where(t.id == run_id)).one_or_none()
    if row is not None and row.status == "running" and run_id not in interrupted(c):
        raise RegistryError(f"run {run_id} ({row.name}) is running.", "Stop it first, or wait for its end.")


def dataset_of(c: Connection, run_id: str) -> str:
    """The fingerprint of the run's dataset. Raises RegistryError for a run that was never begun."""
    row = c.execute(select(tables.runs.c.dataset_fingerprint).where(tables.runs.c.id == run_id)).one_or_none()
    if row is None:
        raise RegistryError(f"no run {run_id} in the registry.", "Begin the run before writing to it.")
    return str(row[0] or run_id)


def resolve(rows: Sequence[dict[str, Any]], text: str) -> dict[str, Any]:
    """Of rows of `runs`, the last started first, the one that `text` names: see `Reader.resolve`."""
    if not rows:
        raise RegistryError("the registry holds no runs.", MAKE_ONE)
    if text == "latest":
        if latest := next((row for row in rows if row["source"] == "run"), None):
            return latest
        raise RegistryError("the registry holds imported results only, no latest run.", "Name one of them.")
    for key in ("id", "name"):
        if exact := [row for row in rows if row[key] == text]:
            if len(exact) > 1:
                _warn_of_others(text, exact)
            return exact[0]
    near = [row for row in rows if text and row["id"].startswith(text)]
    if len(near) == 1:
        return near[0]
    if near:
        listed = ", ".join(f"{row['id']} ({row['name']})" for row in near)
        raise RegistryError(f"'{text}' is the start of {len(near)} runs: {listed}.", "Give more of the id.")
    names = list(dict.fromkeys(row["name"] for row in rows))
    raise RegistryError(f"no run '{text}' in the registry.", did_you_mean(text, names))


def _warn_of_others(name: str, rows: Sequence[dict[str, Any]]) -> None:
    others = ", ".join(f"{row['id']} of {row['started_at'][:16]}" for row in rows[1:4])
    more = f" and {len(rows) - 4} more" if len(rows) > 4 else ""
    warnings.warn(
        f"{len(rows)} runs are named '{name}': this is about {rows[0]['id']}, started last (others: "
        f"{others}{more}). Name a run by its id, or give it a name with `leverplus runs rename`.",
        LeverplusWarning,
        stacklevel=1,  # one place, so that Python shows it once however often a command asks
    )


def _heard_of(moment: str) -> dict[str, Any]:
    return {"host": this_host(), "pid": os.getpid(), "alive_at": moment}
