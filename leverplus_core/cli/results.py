"""Verbs that ask the registry."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, open_registry


def register(app: typer.Typer) -> None:
    app.command()(leaderboard)
    app.command()(compare)
    app.command()(sql)


def leaderboard(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Only this run: id, prefix, name or 'latest'.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Only this method.")] = None,
    shots: Annotated[int | None, typer.Option(help="Only this number of shots.")] = None,
    n: Annotated[int | None, typer.Option("--n", help="Only this sample size.")] = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Accuracy of every method, by shots and sample size, with 95% intervals."""
    from leverplus_core.report import leaderboard_rows, leaderboard_table

    store = open_registry(registry)
    rows = leaderboard_rows(store, run=run, method=method, shots=shots, n=n)
    output.table(rows, leaderboard_table, json)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="RUN or RUN:METHOD.")],
    b: Annotated[str, typer.Argument(metavar="B", help="RUN or RUN:METHOD.")],
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """A minus B on the same questions: paired difference, 95% interval and p-value."""
    from leverplus_core.report import compare_rows, compare_table

    output.table(compare_rows(open_registry(registry), a, b), compare_table, json)


def sql(
    query: Annotated[str, typer.Argument(help="A SELECT statement.")],
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Ask the registry anything, read-only."""
    columns, found = open_registry(registry).sql(query)
    output.rows([dict(zip(columns, row, strict=True)) for row in found], json)
