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
    """A minus B on the same questions: paired difference, 95% interval and p-value."""
    from leverplus_core.report.comparison import compare_rows, compare_table

    output.table(compare_rows(open_registry(registry), a, b), compare_table, json)
