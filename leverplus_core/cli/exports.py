"""`leverplus export NAME SOURCE`: what leverplus holds, as a file that another project reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import JsonOpt, PluginOpt, RowsOpt, load_train_questions
from leverplus_core.cli.part_commands import PartCommands

if TYPE_CHECKING:
    from leverplus_core.plugins.contracts import Part
    from leverplus_core.plugins.format_contracts import Exporter


class Exporters(PartCommands):
    """`leverplus export`: a command per exporter."""

    kind = "exporter"

    def action(self, part: type[Part]) -> Callable[..., None]:
        return _export


def _export(
    part: Any,
    name: str,
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER|FILE.jsonl", help="An imported folder, or a candidates or beams file.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")],
    recipe: RowsOpt = None,
    pools: Annotated[
        Path | None,
        typer.Option("--pools", help="Pools of a candidates file, or their folder; by default those beside it."),
    ] = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    from leverplus_core.pipeline.exporting import export_data

    exporter: Exporter = part
    counts = export_data(exporter, source, out, load_train_questions(recipe, plugin), pools)
    output.metadata({"file": str(out), **counts}, json)
