"""`leverplus runs rename`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, RunArg, open_registry


def rename(
    run: RunArg,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its new name, which no other run has.")],
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Give a run another name, which stays when its recipe is run again."""
    with open_registry(registry) as store:
        found = store.resolve(run)
        store.rename_run(found["id"], name)
    output.metadata({"run": found["id"], "name": name, "was": found["name"]}, json)
