"""`leverplus import ...`: what others made, brought in. One verb for each form of file.

A new form is one more function here, with `@imports.command("name")` above it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import (
    DEFAULT_REGISTRY,
    DEFAULT_WORK,
    JsonOpt,
    PluginOpt,
    RegistryOpt,
    RowsOpt,
    WorkOpt,
    load_rows,
)

if TYPE_CHECKING:
    from leverplus_core.interchange.derived import Summary

FolderOpt = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FOLDER", help="The folder to import into; else WORK/imported/<name of FILE>."),
]
MixedOpt = Annotated[bool, typer.Option("--mixed-shots", help="Take sequences of several lengths.")]
ReplaceOpt = Annotated[bool, typer.Option("--replace", help="Replace what the folder holds of this kind.")]

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
    from leverplus_core.registry.registry import Registry

    found = read_published(file, which)
    run_id = Registry(registry).record_published(name or file.stem, found, dataset, model, note, file.name)
    for n, shots in found.absent:
        output.warn(f"{file} has no row for n = {n} at {shots} shots; means are over the rows that are there.")
    metadata = {
        "run": run_id,
        "name": name or file.stem,
        "methods": ", ".join(found.methods),
        "n": ", ".join(map(str, sorted({c.n for c in found.cells}))),
        "shots": ", ".join(map(str, sorted({c.shots for c in found.cells}))),
        "cells": len(found.cells),
    }
    output.metadata(metadata, json)


@imports.command("rl-data")
def rl_data(
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="A Lever-Plus rl_data_*.json, of any size.")],
    out: FolderOpt = None,
    recipe: RowsOpt = None,
    correct_threshold: Annotated[
        float, typer.Option("--correct-at", min=0.0, max=1.0, help="A candidate is correct from this accuracy on.")
    ] = 0.5,
    mixed_shots: MixedOpt = False,
    replace: ReplaceOpt = False,
    plugin: PluginOpt = None,
    work: WorkOpt = DEFAULT_WORK,
    json: JsonOpt = False,
) -> None:
    """Read candidates, pools and rewards, and say what was kept; training can start from the folder."""
    from leverplus_core.interchange.importing import import_rl_data

    folder, rows = _folder(out, work, file), load_rows(recipe, plugin)
    with output.Bars() as bars:
        summary = import_rl_data(
            file,
            folder,
            rows,
            correct_threshold=correct_threshold,
            mixed_shots=mixed_shots,
            replace=replace,
            progress=bars,
        )
    _show(folder, summary, json)


@imports.command("beams")
def beams(
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="A Lever-Plus file of InfoScore beams.")],
    out: FolderOpt = None,
    recipe: RowsOpt = None,
    mixed_shots: MixedOpt = False,
    replace: ReplaceOpt = False,
    plugin: PluginOpt = None,
    work: WorkOpt = DEFAULT_WORK,
    json: JsonOpt = False,
) -> None:
    """Read the sequences that SFT learns from, and say what was kept."""
    from leverplus_core.interchange.importing import import_beams

    folder, rows = _folder(out, work, file), load_rows(recipe, plugin)
    with output.Bars() as bars:
        summary = import_beams(file, folder, rows, mixed_shots=mixed_shots, replace=replace, progress=bars)
    _show(folder, summary, json)


@imports.command("embeddings")
def embeddings(
    file: Annotated[Path, typer.Argument(metavar="FILE.pt", help="A tensor of floats, a row a train question.")],
    out: FolderOpt = None,
    recipe: RowsOpt = None,
    replace: ReplaceOpt = False,
    plugin: PluginOpt = None,
    work: WorkOpt = DEFAULT_WORK,
    json: JsonOpt = False,
) -> None:
    """Read query_embeddings.pt as the features of questions and demonstrations."""
    from leverplus_core.interchange.importing import import_embeddings

    folder = _folder(out, work, file)
    _show(folder, import_embeddings(file, folder, load_rows(recipe, plugin), replace=replace), json)


def _folder(out: Path | None, work: Path, file: Path) -> Path:
    return out or work / "imported" / file.stem


def _show(folder: Path, summary: Summary, json: bool) -> None:
    from leverplus_core.report.imported import imported_view

    output.table({"folder": str(folder), **summary}, imported_view, json)
