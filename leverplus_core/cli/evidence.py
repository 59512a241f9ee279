"""Verbs that say what an evaluation can and cannot show."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, open_registry


def register(app: typer.Typer) -> None:
    app.command()(power)
    app.command()(headroom)


def power(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id, prefix, name or 'latest'.")],
    effect: Annotated[float, typer.Option(help="The difference to be seen; 0.01 is one point.")],
    method: Annotated[str | None, typer.Option(help="The method; what was trained last by default.")] = None,
    baseline: Annotated[str, typer.Option(help="What it is compared with.")] = "random",
    power: Annotated[float, typer.Option(help="The chance of seeing the difference.")] = 0.8,
    comparisons: Annotated[
        int | None, typer.Option(help="How many comparisons are corrected for; one a number of shots by default.")
    ] = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """How many questions it takes to see a difference, from the spread that a run's answers have."""
    from leverplus_core.report.power import power_rows, power_table

    rows = power_rows(open_registry(registry), run, effect, method, baseline, power, comparisons)
    output.table(rows, power_table, json)


def headroom(
    run: Annotated[str, typer.Argument(metavar="RUN[:METHOD]", help="A run, and which method of it.")],
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """How much of the gap from random to oracle a method closes, with intervals."""
    from leverplus_core.report.headroom import headroom_rows, headroom_table

    output.table(headroom_rows(open_registry(registry), run), headroom_table, json)
