"""`leverplus compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, open_registry


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="RUN or RUN:METHOD.")],
    b: Annotated[str, typer.Argument(metavar="B", help="RUN or RUN:METHOD.")],
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """A minus B on the same questions: paired difference, 95% interval and p-value.

    The primary endpoint, the mean over the numbers of shots, stands above the cells.
    """
    from leverplus_core.report.comparison import compare_rows, compare_table, primary_rows

    with open_registry(registry) as store:
        output.table([*primary_rows(store, a, b), *compare_rows(store, a, b)], compare_table, json)
