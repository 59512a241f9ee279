"""`leverplus cache`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from leverplus_core.cli import options, output


def cache(work: options.WorkOpt = options.DEFAULT_WORK, json: options.JsonOpt = False) -> None:
    """Show what the folder of artifacts holds, by kind; or prune it."""
    from leverplus_core.pipeline.storage import by_kind, stored

    rows: list[dict[str, Any]] = [
        {"kind": kind, "number": len(things), "bytes": sum(thing.bytes for thing in things),
         "last written": max(thing.written for thing in things)}
        for kind, things in by_kind(stored(work)).items()
    ]  # fmt: skip
    if json:
        output.rows(rows, json)
        return
    shown = [
        {"kind": row["kind"], "number": f"{row['number']:,}", "size": output.size(row["bytes"]),
         "last written (UTC)": datetime.fromtimestamp(row["last written"], UTC).strftime("%Y-%m-%d %H:%M")}
        for row in rows
    ]  # fmt: skip
    output.rows(shown, json, right=("number", "size"))
    output.say(f"{output.size(sum(row['bytes'] for row in rows))} in {work}")
