"""`leverplus runs delete`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import completion, options, output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, open_registry


def delete(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", autocompletion=completion.runs, help="Ids, prefixes or names.")
    ],
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Leave the folders of its stages.")] = False,
    yes: options.YesOpt = False,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Delete runs: their results, and the folders of stages that no other run of the registry has.

    Asks first. A run that is running is refused. That the evaluation questions were asked stays on record, and the
    model's answers stay in the cache (`leverplus cache prune`).
    """
    from leverplus_core.pipeline.storage import folders_of

    with open_registry(registry) as store:
        found = list({row["id"]: row for row in map(store.resolve, runs)}.values())
        store.refuse_running([row["id"] for row in found])
        folders = [] if keep_files else folders_of(store, [row["id"] for row in found])
        size = output.size(sum(folder.bytes for folder in folders))
        for row in found:
            output.say(f"{row['id']} ({row['name']}), {row['status']}, started {row['started_at'][:16]}")
        runs_, folders_ = output.many(len(found), "run"), output.many(len(folders), "folder")
        options.confirm(f"Delete {runs_} and {folders_} of stages ({size})?", yes)
        for folder in folders:
            folder.remove()
        for row in found:
            store.delete_run(row["id"])
    removed = {"runs": [row["id"] for row in found], "folders": len(folders), "bytes": sum(f.bytes for f in folders)}
    if json:
        output.metadata(removed, json)
    else:
        output.say(f"deleted {runs_} and {folders_} ({size})")
