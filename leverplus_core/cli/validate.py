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
    composed,
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
    loaded = load_recipe(recipe, overrides)
    with composed(loaded, plugin, work) as context:
        metadata: dict[str, object] = {
            "recipe": loaded.name,
            "run": loaded.fingerprint()[:12],
            "parts": {
                row["kind"]: f"{row['name']} ({row['distribution']} {row['version']})".replace(" )", ")")
                for row in context.provenance()
            },
            "stages": ", ".join(name for name, enabled in context.enabled.items() if enabled),
        }
        notes = [loaded.note]
        if not context.offline:
            dataset = context.dataset
            metadata["questions"] = {split: len(dataset.questions(split)) for split in ("train", "validation")}
            metadata["demonstrations"] = len(dataset.demonstrations())
            notes.append(dataset.note())
    output.metadata({**metadata, "note": " ".join(filter(None, notes))}, json)
