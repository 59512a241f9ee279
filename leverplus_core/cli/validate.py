"""`leverplus validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from leverplus_core.cli import output
from leverplus_core.cli.options import (
    JsonOpt,
    PluginOpt,
    RecipeArg,
    SetOpt,
    load_catalog,
    load_recipe,
)

if TYPE_CHECKING:
    from leverplus_core.pipeline.context import RunContext
    from leverplus_core.recipes.recipe import Recipe

SPLITS: tuple[Literal["train", "validation"], ...] = ("train", "validation")


def validate(
    recipe: RecipeArg = "demo",
    overrides: SetOpt = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Validate a recipe and its parts, and read its dataset; no model is loaded and nothing is written."""
    from tempfile import TemporaryDirectory

    from leverplus_core.pipeline.context import RunContext

    loaded = load_recipe(recipe, overrides)
    with TemporaryDirectory() as scratch:  # an imported file is read into it
        context = RunContext(loaded, load_catalog(plugin), Path(scratch))
        output.metadata(_described(loaded, context), json)


def _described(recipe: Recipe, context: RunContext) -> dict[str, Any]:
    from leverplus_core.pipeline.graph import Pipeline

    parts = {row["kind"]: f"{row['name']} ({row['distribution']} {row['version']})" for row in context.provenance()}
    described: dict[str, Any] = {"recipe": recipe.name, "run": recipe.fingerprint()[:12], "parts": parts}
    if context.offline:
        assert context.imported is not None
        described["imported"] = str(recipe.imported.folder)
    else:
        described["questions"] = {s: len(context.dataset.questions(s)) for s in SPLITS}
        described["demonstrations"] = len(context.dataset.demonstrations())
    pipeline = Pipeline(context)
    stages = [stage.name for stage in pipeline.stages if pipeline.enabled[stage.name]]
    described["stages"] = ", ".join(stages)
    note = "" if context.offline else context.dataset.note()
    return {**described, "note": " ".join(filter(None, (recipe.note, note)))}
