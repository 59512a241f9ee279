"""`leverplus power`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, RunArg, open_registry


def power(
    run: RunArg,
    effect: Annotated[
        float, typer.Option(min=-100, max=100, help="The difference to detect, in points: 1 is from 50% to 51%.")
    ],
    method: Annotated[str | None, typer.Option(help="The method; by default the policy trained last.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The method to compare with; by default the run's best baseline.")
    ] = None,
    power: Annotated[float, typer.Option(help="The probability of detecting the difference.")] = 0.8,
    comparisons: Annotated[
        int | None, typer.Option(help="How many comparisons are corrected for; by default one per number of shots.")
    ] = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Estimate how many questions it takes to detect a difference, from the variance of a run's answers."""
    from leverplus_core.report.power import power_rows, power_table

    rows = power_rows(open_registry(registry), run, effect / 100, method, baseline, power, comparisons)
    output.table(rows, power_table, json)
