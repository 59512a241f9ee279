"""`leverplus headroom`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import completion, output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, open_registry


def headroom(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN[:METHOD]", autocompletion=completion.runs, help="A run, and one of its methods."),
    ],
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Show how much of the gap from the best baseline, and from random, to the oracle a method closes."""
    from leverplus_core.report.headroom import headroom_rows, headroom_table

    output.table(headroom_rows(open_registry(registry), run), headroom_table, json)
