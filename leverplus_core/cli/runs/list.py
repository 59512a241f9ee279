"""`leverplus runs`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, open_registry


def runs(
    tag: Annotated[list[str] | None, typer.Option(help="Only runs with this tag; repeatable: with all.")] = None,
    sweep: Annotated[str | None, typer.Option(help="Only runs of this sweep.")] = None,
    status: Annotated[str | None, typer.Option(help="Only runs of this status, such as done.")] = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """List the runs, the last started first; or rename, tag, note or delete one."""
    with open_registry(registry) as store:
        labels, rows = store.labels(), []
        for run in store.runs():
            own = labels.get(run["id"], {"note": "", "tags": []})
            if not set(tag or ()) <= set(own["tags"]) or (sweep and run["sweep"] != sweep):
                continue
            if status is None or run["status"] == status:
                rows.append({key: run[key] for key in ("id", "name", "status", "started_at")} | {"tags": own["tags"]}
                            | {"note": own["note"], "sweep": run["sweep"], "seed": run["seed"]})  # fmt: skip
    if json:
        output.rows(rows, json)
        return
    shown = [
        {key: row[key] for key in ("id", "name", "status")}
        | {
            "started (UTC)": row["started_at"][:16].replace("T", " "),
            "tags": " ".join(row["tags"]),
            "note": row["note"],
        }
        for row in rows
    ]
    empty = {key for key in ("tags", "note") if not any(row[key] for row in shown)}
    output.rows([{key: value for key, value in row.items() if key not in empty} for row in shown], json, records=True)
