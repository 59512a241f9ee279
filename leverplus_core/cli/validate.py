"""`leverplus validate`."""

from __future__ import annotations

from leverplus_core.cli import output
from leverplus_core.cli.options import (
    DEFAULT_WORK,
    JsonOpt,
    PluginOpt,
    RecipeArg,
    SetOpt,
    WorkOpt,
    load_catalog,
    load_recipe,
)


def validate(
    recipe: RecipeArg = "demo",
    overrides: SetOpt = None,
    plugin: PluginOpt = None,
    work: WorkOpt = DEFAULT_WORK,
    json: JsonOpt = False,
) -> None:
    """Validate a recipe and its parts, and read its dataset; no model is loaded and nothing is written."""
    from leverplus_core.pipeline.run import compose
    from leverplus_core.pipeline.workspace import Workspace

    loaded = load_recipe(recipe, overrides)
    parts = compose(loaded, Workspace(work), load_catalog(plugin))
    counts = {split: len(parts.dataset.questions(split)) for split in ("train", "validation")}
    metadata = {
        "recipe": loaded.name,
        "run": loaded.fingerprint()[:12],
        "parts": {row["kind"]: f"{row['name']} ({row['distribution']} {row['version']})" for row in parts.provenance()},
        "questions": counts,
        "demonstrations": len(parts.dataset.demonstrations()),
        "note": " ".join(filter(None, (loaded.note, parts.dataset.note()))),
    }
    output.metadata(metadata, json)
