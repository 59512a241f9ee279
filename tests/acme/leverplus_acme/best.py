"""A command: `leverplus acme best`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core import Registry, output


def best(
    registry: Annotated[str, typer.Option(help="Database URL of the registry.")] = "sqlite:///leverplus.db",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the method with the highest accuracy of each run."""
    query = "SELECT name, method, shots, max(accuracy) AS accuracy FROM leaderboard GROUP BY run"
    columns, rows = Registry.open_existing(registry).sql(query)
    output.rows([dict(zip(columns, row, strict=True)) for row in rows], json)
