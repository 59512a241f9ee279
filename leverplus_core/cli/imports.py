"""`leverplus import ...`: what others made, brought in. One verb for each form of file.

A new form is one more function here, with `@imports.command("name")` above it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt

imports = typer.Typer(
    name="import",
    help="Bring in what others made: published tables, candidates, beams, embeddings.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.add_typer(imports)


@imports.command("table")
def table(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.md", help="A Markdown table: sample size, shot, a column a method.")
    ],
    name: Annotated[str | None, typer.Option("--name", help="Name of the run; else the file's.")] = None,
    dataset: Annotated[str, typer.Option("--dataset", help="The dataset that it was measured on, where known.")] = "",
    model: Annotated[str, typer.Option("--model", help="The model that was asked, where known.")] = "",
    note: Annotated[str, typer.Option("--note", help="What a reader must know, such as where it was published.")] = "",
    which: Annotated[int | None, typer.Option("--table", help="Which table of the file, where it has several.")] = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Read a published table, in percent, as a run of results without predictions; each column is a method."""
    from leverplus_core.published import read_published
    from leverplus_core.registry import Registry

    found = read_published(file, which)
    run_id = Registry(registry).record_published(name or file.stem, found, dataset, model, note, file.name)
    for n, shots in found.absent:
        output.warn(f"{file} has no row for n = {n} at {shots} shots; means are over the rows that are there.")
    facts = {
        "run": run_id,
        "name": name or file.stem,
        "methods": ", ".join(found.methods),
        "n": ", ".join(map(str, sorted({c.n for c in found.cells}))),
        "shots": ", ".join(map(str, sorted({c.shots for c in found.cells}))),
        "cells": len(found.cells),
    }
    output.facts(facts, json)
