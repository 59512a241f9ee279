"""`leverplus import NAME FILE`: files that others wrote, each read by the importer of that name."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leverplus_core.cli import options, output
from leverplus_core.cli.app import command
from leverplus_core.cli.part_commands import PartCommands
from leverplus_core.errors import DataError

if TYPE_CHECKING:
    from leverplus_core.plugins.contracts import Part
    from leverplus_core.plugins.format_contracts import DataImporter, ResultsImporter, SamplesImporter

SAMPLES = "samples"
ABOUT_SAMPLES = "Logs of single samples of lm-eval, lmms-eval or inspect, told apart by what they hold, as predictions."
FileArg = Annotated[Path, typer.Argument(metavar="FILE", help="The file to read.")]


class Importers(PartCommands):
    """`leverplus import`: a command per importer."""

    kind = "importer"

    def action(self, part: type[Part]) -> Callable[..., None]:
        from leverplus_core.plugins.format_contracts import ResultsImporter, SamplesImporter

        if issubclass(part, SamplesImporter):
            return _import_samples
        return _import_results if issubclass(part, ResultsImporter) else _import_data

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the parts, and `samples`, which finds the part that reads a log."""
        return sorted([*super().list_commands(ctx), SAMPLES])

    def help_lines(self) -> dict[str, str]:
        """As of every kind of part."""
        return super().help_lines() | {SAMPLES: ABOUT_SAMPLES}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a part, or `samples`."""
        if cmd_name != SAMPLES:
            return super().get_command(ctx, cmd_name)
        wanted = signature(_import_samples, eval_str=True).parameters

        def samples(**given: Any) -> None:
            _import_samples(self._samples_importers(), cmd_name, **given)

        own = [wanted[name] for name in wanted if name not in ("part", "name")]
        samples.__signature__ = Signature(own)  # type: ignore[attr-defined]
        samples.__annotations__ = {}
        samples.__doc__ = ABOUT_SAMPLES
        return command(SAMPLES, samples)

    def _samples_importers(self) -> dict[str, SamplesImporter]:
        """All parts that read logs of single samples, by name."""
        from leverplus_core.plugins.format_contracts import SamplesImporter

        known = [e.name for e in self.catalog.checked_entries() if e.kind == self.kind and e.status == "ok"]
        named = [name for name in known if issubclass(self.catalog.part_class(self.kind, name), SamplesImporter)]
        return {name: self.catalog.build(self.kind, name, {}) for name in named}


FilesArg = Annotated[
    list[Path], typer.Argument(metavar="FILE", help="Logs of single samples: of one or several models, or tasks.")
]
MetricOpt = Annotated[str | None, typer.Option("--metric", help="Whose scores; needed where the logs have several.")]
ScaleOpt = Annotated[
    float, typer.Option("--scale", min=1e-6, max=1e6, help="The metric's best value, by which scores are divided.")
]
NameOpt = Annotated[
    str | None,
    typer.Option("--name", help="A new run, or one to add the logs to [default: the task]."),
]
MethodOpt = Annotated[
    str | None, typer.Option("--method", help="What the logs are called in it [default: the model's name].")
]
ShotsOpt = Annotated[
    int | None,
    typer.Option("--shots", min=0, max=9999, help="Examples in the prompt [default: as logged, or 0]."),
]
DatasetOpt = Annotated[
    str | None,
    typer.Option("--dataset", help="The dataset that was measured [default: the task]; another version needs another."),
]
NoteOpt = Annotated[str, typer.Option("--note", help="What a reader must know of the logs.")]


def _import_samples(
    part: Any,
    name: str,
    files: FilesArg,
    metric: MetricOpt = None,
    scale: ScaleOpt = 1.0,
    run: NameOpt = None,
    method: MethodOpt = None,
    shots: ShotsOpt = None,
    dataset: DatasetOpt = None,
    note: NoteOpt = "",
    registry: options.RegistryOpt = options.DEFAULT_REGISTRY,
    json: options.JsonOpt = False,
) -> None:
    from leverplus_core.pipeline.samples import read_samples, recognize
    from leverplus_core.registry.registry import Registry
    from leverplus_core.report.imported import samples_view

    sources = [(recognize(part, file) if isinstance(part, dict) else part, file) for file in files]
    with output.Bars() as bars:
        found = read_samples(sources, metric=metric, scale=scale, method=method, shots=shots, progress=bars)
    name, of = run or found.task, dataset or found.task or run
    if not name or not of:
        raise DataError("the logs are of several tasks, or do not say of which.", "Name the run with --name.")
    for remark in found.remarks:
        output.warn(f"{remark}.")
    texts = [text.rstrip(".") + "." for text in (note, *found.remarks) if text]
    with Registry(registry) as store:
        run_id = store.record_samples(name, of, found.metric, found.harness, found.methods, " ".join(texts))
        cells = store.cells([run_id])
    rows = [
        {"method": one.method, "accuracy": cell["accuracy"], "ci_low": cell["ci_low"], "ci_high": cell["ci_high"],
         "n": cell["n"], "shots": cell["shots"], "log": one.harness}
        for one in found.methods for cell in cells if cell["method"] == one.method
    ]  # fmt: skip
    about = {"run": run_id, "name": name, "dataset": of, "metric": found.metric}
    output.table({**about, "methods": rows}, samples_view, json)


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
