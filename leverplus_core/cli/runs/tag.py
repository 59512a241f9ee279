"""`leverplus runs tag`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, RunArg, open_registry


def tag(
    run: RunArg,
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG]...", help="Tags to add.")] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", metavar="TAG", help="Remove it; repeatable.")] = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Add tags to a run, or remove them: `leverplus runs --tag TAG` then finds it."""
    with open_registry(registry) as store:
        found = store.resolve(run)
        kept = store.label_run(found["id"], add=tags or (), remove=remove or ())
    output.metadata({"run": found["id"], "name": found["name"], "tags": ", ".join(kept["tags"])}, json)
