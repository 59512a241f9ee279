"""`leverplus validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from leverplus_core.cli import options, output
from leverplus_core.cli.recipe_options import RecipeOptions, takes_recipe

if TYPE_CHECKING:
    from leverplus_core.pipeline.context import RunContext
    from leverplus_core.pipeline.graph import Pipeline


@takes_recipe
def validate(
    *,
    chosen: RecipeOptions,
    plugin: options.PluginOpt = None,
    work: options.WorkOpt = options.DEFAULT_WORK,
    data: Annotated[
        bool, typer.Option("--data", help="Decode every picture, and name those that are damaged.")
    ] = False,
    json: options.JsonOpt = False,
) -> None:
    """Say what can be known of a recipe before its first prompt: its settings, its parts, this machine, its questions.

    No model is loaded and nothing is written.
    """
    with options.composed(chosen.load(), plugin, work) as pipeline:
        described = _described(pipeline)
        if data and not pipeline.context.offline:
            described["pictures"] = f"{_decoded(pipeline.context):,}, all of which can be read"
        output.metadata(described, json)


def _decoded(context: RunContext) -> int:
    from leverplus_core.pipeline.picture_check import check_pictures

    with output.Bars() as bars:
        return check_pictures(context.every_question(), context.picture_reader, bars)


def _described(pipeline: Pipeline) -> dict[str, Any]:
    from leverplus_core.pipeline.checks import check
    from leverplus_core.pipeline.paths import paths_of

    context = pipeline.context
    recipe = context.recipe
    remarks = check(context)
    parts: dict[str, list[str]] = {}
    for row in context.provenance():
        origin = f"{row['distribution']} {row['version']}".strip()
        parts.setdefault(row["kind"], []).append(f"{row['name']} ({origin})")
    described: dict[str, Any] = {
        "recipe": recipe.name,
        "run": recipe.fingerprint()[:12],
        "parts": {kind: ", ".join(names) for kind, names in parts.items()},
        "stages": ", ".join(stage.name for stage in pipeline.stages if pipeline.enabled[stage.name]),
    }
    if context.offline:
        return {**described, "imported": recipe.imported.folder, "note": recipe.note}
    dataset = context.dataset
    described["questions"] = {split: len(dataset.questions(split)) for split in ("train", "validation")}
    sets = context.question_sets
    described["of these"] = {
        "searched": len(sets.searched),
        "proposed for": len(sets.proposed),
        "held out": len(sets.held_out),
        "choose the baseline": len(sets.baseline),
        "evaluated": len(sets.evaluated),
    }
    described["demonstrations"] = len(dataset.demonstrations())
    if paths := paths_of(recipe, context.catalog):
        described["paths"] = paths
    if remarks:
        described["remarks"] = "; ".join(remarks)
    return {**described, "note": " ".join(filter(None, (recipe.note, dataset.note())))}
