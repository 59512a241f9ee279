"""`leverplus compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import completion, output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, open_registry


def compare(
    a: Annotated[str, typer.Argument(metavar="A", autocompletion=completion.runs, help="RUN or RUN:METHOD.")],
    b: Annotated[str, typer.Argument(metavar="B", autocompletion=completion.runs, help="RUN or RUN:METHOD.")],
    method: Annotated[
        list[str] | None, typer.Option(help="Of a RUN only this method; repeatable, as all filters are.")
    ] = None,
    shots: Annotated[list[int] | None, typer.Option(help="Only this number of shots.")] = None,
    n: Annotated[list[int] | None, typer.Option("--n", help="This sample size; else the largest.")] = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """A minus B on the same questions: paired difference, 95% interval and p-value.

    The primary endpoint, the mean over the numbers of shots, stands above the cells of the largest sample. Intervals
    are corrected for the cells that are compared: --method, --shots and --n make fewer of them, and leave the endpoint
    out where they say of which cells.
    """
    from leverplus_core.report.comparison import compare_rows, compare_table, primary_rows

    with open_registry(registry) as store:
        primary = [] if shots or n else primary_rows(store, a, b, method or ())
        rows = compare_rows(store, a, b, method or (), shots or (), n or ())
    output.table([*primary, *rows], compare_table, json)
