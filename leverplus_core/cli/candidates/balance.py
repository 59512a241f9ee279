"""`leverplus candidates balance`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.candidates import OutOpt
from leverplus_core.cli.options import JsonOpt, PluginOpt, SetOpt, load_catalog
from leverplus_core.cli.recipe_options import RecipeOptions
from leverplus_core.errors import DataError


def balance(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="A candidates file.")],
    out: OutOpt,
    balancer: Annotated[str, typer.Option("--balancer", metavar="NAME[:k=v,...]", help="The balancer.")],
    overrides: SetOpt = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Balance a candidates file, and show the table before and after."""
    from leverplus_core.candidates.store import read_groups, write_groups
    from leverplus_core.pipeline.stages.balance import balanced, nothing_left
    from leverplus_core.report.balance import balance_table

    chosen = RecipeOptions(overrides=overrides, balancer=balancer).load()
    part = load_catalog(plugin).build("balancer", chosen.balancer.name, chosen.balancer.settings, "--balancer")
    groups = read_groups(file)
    kept, metadata, _ = balanced(groups, part, chosen.seed)
    if not metadata["after"]["questions"]:
        raise DataError(f"{nothing_left(groups, metadata, {})}.", "Loosen its settings, or use keep_all.")
    write_groups(out, kept)
    output.table(metadata, balance_table, json)
