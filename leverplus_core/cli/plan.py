"""`leverplus plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import (
    JsonOpt,
    PluginOpt,
    RecipeArg,
    SetOpt,
    load_catalog,
    load_recipe,
)


def plan(
    recipe: RecipeArg = "demo",
    overrides: SetOpt = None,
    prompts_per_s: Annotated[
        float | None, typer.Option("--prompts-per-s", min=0.001, help="Prompts of two demonstrations per second.")
    ] = None,
    images_per_s: Annotated[
        float | None, typer.Option("--images-per-s", min=0.001, help="Images encoded per second.")
    ] = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Estimate model calls, disk and time per stage; no weights are loaded and nothing is written."""
    from tempfile import TemporaryDirectory

    from leverplus_core.pipeline.context import RunContext
    from leverplus_core.pipeline.plan import Throughput, plan_table
    from leverplus_core.pipeline.plan import plan as plan_of

    with TemporaryDirectory() as scratch:  # an imported file is read into it
        found = plan_of(RunContext(load_recipe(recipe, overrides), load_catalog(plugin), Path(scratch)))
    assumed = Throughput()
    device = Throughput(prompts_per_s or assumed.prompts_per_s, images_per_s or assumed.images_per_s)
    rows = found.rows(device)
    summary = found.summary(device)
    if json:
        output.metadata({**summary, "stages": rows}, json)
    else:
        output.table(rows, plan_table, json)
        output.metadata({key: value for key, value in summary.items() if value}, json)
