"""`leverplus plan`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import options, output


def plan(
    recipe: options.RecipeArg = "demo",
    overrides: options.SetOpt = None,
    prompts_per_s: Annotated[
        float | None, typer.Option("--prompts-per-s", min=0.001, help="Prompts of two demonstrations per second.")
    ] = None,
    images_per_s: Annotated[
        float | None, typer.Option("--images-per-s", min=0.001, help="Images encoded per second.")
    ] = None,
    plugin: options.PluginOpt = None,
    work: options.WorkOpt = options.DEFAULT_WORK,
    json: options.JsonOpt = False,
) -> None:
    """Estimate model calls, disk and time per stage; no weights are loaded and nothing is written."""
    from leverplus_core.pipeline.plan import Throughput, plan_table
    from leverplus_core.pipeline.plan import plan as plan_of

    with options.composed(options.load_recipe(recipe, overrides), plugin, work) as pipeline:
        found = plan_of(pipeline.context)
    assumed = Throughput()
    device = Throughput(prompts_per_s or assumed.prompts_per_s, images_per_s or assumed.images_per_s)
    rows, summary = found.rows(device), found.summary(device)
    if json:
        output.metadata({**summary, "stages": rows}, json)
    else:
        output.table(rows, plan_table, json)
        output.metadata({key: value for key, value in summary.items() if value}, json)
