"""`leverplus plan`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from leverplus_core.cli import options, output
from leverplus_core.cli.recipe_options import RecipeOptions, takes_recipe
from leverplus_core.errors import LeverplusError, RecipeError

if TYPE_CHECKING:
    from leverplus_core.pipeline.context import RunContext
    from leverplus_core.pipeline.probe import Probe


@takes_recipe
def plan(
    *,
    chosen: RecipeOptions,
    prompts_per_s: Annotated[
        float | None, typer.Option("--prompts-per-s", min=0.001, help="Prompts of two demonstrations per second.")
    ] = None,
    images_per_s: Annotated[
        float | None, typer.Option("--images-per-s", min=0.001, help="Images encoded per second.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Time thirty prompts on this machine; loads the model, writes nothing.")
    ] = False,
    plugin: options.PluginOpt = None,
    work: options.WorkOpt = options.DEFAULT_WORK,
    json: options.JsonOpt = False,
) -> None:
    """Estimate model calls, disk and time per stage; nothing is written, and without --probe no weights are loaded.

    A recipe that cannot run on this machine is planned all the same, and what this machine lacks is told.
    """
    from leverplus_core.pipeline.paths import paths_of
    from leverplus_core.pipeline.plan import Throughput, plan_table
    from leverplus_core.pipeline.plan import plan as plan_of

    stated = {"prompts_per_s": prompts_per_s, "images_per_s": images_per_s}
    given = {name: value for name, value in stated.items() if value is not None}
    if probe and given:
        named = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise RecipeError(f"--probe measures what {named} would state.", "Give one or the other.")
    with options.composed(chosen.load(), plugin, work) as pipeline:
        found = plan_of(pipeline.context)
        remarks = _remarks(pipeline.context)
        timed = _timed(pipeline.context) if probe else None
    device = timed.throughput if timed else replace(Throughput(), source="as given", **given) if given else Throughput()
    rows, summary = found.rows(device), found.summary(device)
    summary["paths"] = paths_of(pipeline.context.recipe, pipeline.context.catalog)
    if remarks:
        summary["remarks"] = "; ".join(remarks)
    if timed:
        summary["probe"] = timed.values()
    if json:
        output.metadata({**summary, "stages": rows}, json)
    else:
        output.table(rows, plan_table, json)
        output.metadata({key: value for key, value in summary.items() if value and key != "probe"}, json)


def _remarks(context: RunContext) -> list[str]:
    """What `validate` says of the recipe, and the one thing, if any, that it would end with here."""
    from leverplus_core.pipeline.checks import check

    try:
        return check(context)
    except LeverplusError as e:
        output.warn(f"as it stands, this does not run here: {e}")
        return []


def _timed(context: RunContext) -> Probe:
    from leverplus_core.pipeline.probe import probe

    output.say("probe: loading the model and timing its prompts")
    return probe(context)
