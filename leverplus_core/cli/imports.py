"""`leverplus import NAME FILE`: files that others wrote, each read by the importer of that name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leverplus_core.cli import options, output
from leverplus_core.cli.part_commands import PartCommands

if TYPE_CHECKING:
    from leverplus_core.plugins.contracts import DataImporter, Part, ResultsImporter

FileArg = Annotated[Path, typer.Argument(metavar="FILE", help="The file to read.")]


class Importers(PartCommands):
    """`leverplus import`: a command per importer."""

    kind = "importer"

    def action(self, part: type[Part]) -> Callable[..., None]:
        from leverplus_core.plugins.contracts import ResultsImporter

        return _import_results if issubclass(part, ResultsImporter) else _import_data


def _import_results(
    part: Any,
    name: str,
    file: FileArg,
    run: Annotated[str | None, typer.Option("--name", help="Name of the run; by default the file's.")] = None,
    dataset: Annotated[str, typer.Option("--dataset", help="The dataset that was measured, where known.")] = "",
    model: Annotated[str, typer.Option("--model", help="The model that was measured, where known.")] = "",
    note: Annotated[str, typer.Option("--note", help="What a reader must know, such as where it was published.")] = "",
    registry: options.RegistryOpt = options.DEFAULT_REGISTRY,
    json: options.JsonOpt = False,
) -> None:
    from leverplus_core.registry.registry import Registry

    importer: ResultsImporter = part
    found, run = importer.read(file), run or file.stem
    run_id = Registry(registry).record_published(run, found, dataset, model, note, file.name)
    for n, shots in found.absent:
        output.warn(f"{file} has no row for n = {n} at {shots} shots; means are over the rows that are there.")
    metadata = {
        "run": run_id,
        "name": run,
        "methods": ", ".join(found.methods),
        "n": ", ".join(map(str, sorted({c.n for c in found.cells}))),
        "shots": ", ".join(map(str, sorted({c.shots for c in found.cells}))),
        "cells": len(found.cells),
    }
    output.metadata(metadata | ({"left out": ", ".join(found.left_out)} if found.left_out else {}), json)


def _import_data(
    part: Any,
    name: str,
    file: FileArg,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FOLDER", help="The folder to import into [default: WORK/imported/FILE]."),
    ] = None,
    recipe: options.RowsOpt = None,
    mixed_shots: Annotated[bool, typer.Option("--mixed-shots", help="Take sequences of several lengths.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace what the folder holds of this kind.")] = False,
    plugin: options.PluginOpt = None,
    work: options.WorkOpt = options.DEFAULT_WORK,
    json: options.JsonOpt = False,
) -> None:
    from leverplus_core.pipeline.importing import import_data
    from leverplus_core.report.imported import imported_view

    importer: DataImporter = part
    folder, questions = out or work / "imported" / file.stem, options.load_train_questions(recipe, plugin)
    with output.Bars() as bars:
        summary = import_data(
            importer, name, file, folder, questions, mixed_shots=mixed_shots, replace=replace, progress=bars
        )
    output.table({"folder": str(folder), **summary}, imported_view, json)
