"""`leverplus sweep`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import options, output
from leverplus_core.cli.recipe_options import RecipeOptions, takes_recipe


@takes_recipe
def sweep(
    *,
    over: Annotated[
        list[str] | None,
        typer.Option("--over", metavar="A.B=V,W,...", help="A setting, part, or `recipe`, and its values; repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Training seeds per combination.")] = 1,
    chosen: RecipeOptions,
    track: options.TrackOpt = None,
    plugin: options.PluginOpt = None,
    registry: options.RegistryOpt = options.DEFAULT_REGISTRY,
    work: options.WorkOpt = options.DEFAULT_WORK,
    json: options.JsonOpt = False,
) -> None:
    """Run the cross product of some settings, sharing equal stages, and compare every arm with the first.

    Held-out train questions are evaluated, unless the recipe or --set evaluation.split=... says otherwise.
    The same command resumes a sweep that was stopped. `leverplus report NAME` writes the whole report.
    """
    from leverplus_core.pipeline.sweep import HELD_OUT, Axis, Sweep, run_sweep
    from leverplus_core.registry.registry import Registry
    from leverplus_core.report.sweep import sweep_rows, sweep_table

    catalog = options.load_catalog(plugin)
    axes = [Axis.parse(text) for text in over or []]
    planned = Sweep.of(chosen.recipe, axes, seeds, chosen.settings(), chosen.name, chosen.parts())
    store = Registry(registry)
    output.say(f"sweep {planned.name}: {len(planned.runs)} runs")
    if planned.held_out:
        output.say(f"held-out train questions are evaluated ({HELD_OUT}): choose on them, then run the choice once")
    with output.Bars() as bars, output.stopping():
        run_sweep(planned, store, work, catalog, bars, track or ())
    output.table(sweep_rows(store, planned.name), sweep_table, json)
