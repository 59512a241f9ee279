"""`leverplus recipes`: those that are bundled, and what one says."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import completion, options, output
from leverplus_core.cli.options import JsonOpt
from leverplus_core.cli.recipe_options import RecipeOptions
from leverplus_core.text import shown


def recipes(json: JsonOpt = False) -> None:
    """List the bundled recipes, or show one."""
    from leverplus_core.recipes.loader import bundled

    rows = []
    for name, path in bundled().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        rows.append({"name": name, "about": first.removeprefix("#").strip()})
    output.rows(rows, json)


def show(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", autocompletion=completion.recipes, help="A bundled recipe by name, or a recipe file."
        ),
    ],
    overrides: options.SetOpt = None,
    full: Annotated[
        bool, typer.Option("--full", help="Every setting: with those of the recipes that it extends, and defaults.")
    ] = False,
    json: JsonOpt = False,
) -> None:
    """Print a recipe as its file has it: the start of one of your own.

    With --full, --set or --json it prints every setting that a run of it would have, defaults included, and paths as
    they are resolved: those of a recipe file begin in its folder, those of --set in the current one.
    """
    from leverplus_core.recipes.loader import as_yaml, recipe_text

    if not (full or overrides or json):
        print(shown(recipe_text(recipe)), end="")
        return
    from leverplus_core.pipeline.paths import with_paths

    values = with_paths(RecipeOptions(recipe, overrides).load(), options.load_catalog(None)).values()
    if json:
        output.metadata(values, json)
    else:
        print(shown(as_yaml(values)), end="")
