"""`leverplus runs note`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, RunArg, open_registry


def note(
    run: RunArg,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The note, in place of the one before; '' removes it.")],
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Write a note on a run, which `leverplus runs` shows. The protocol's own note, which tables show, is another."""
    with open_registry(registry) as store:
        found = store.resolve(run)
        kept = store.label_run(found["id"], note=text)
    output.metadata({"run": found["id"], "name": found["name"], "note": kept["note"]}, json)
