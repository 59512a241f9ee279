"""`leverplus export ...`: what leverplus holds, as files that the Lever-Plus research code reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import JsonOpt, PluginOpt, RowsOpt, load_rows

if TYPE_CHECKING:
    from leverplus_core.interchange.exporting import Written

exports = typer.Typer(
    name="export",
    help="Write candidates, beams and embeddings as Lever-Plus files.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
OutOpt = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.")]


def register(app: typer.Typer) -> None:
    app.add_typer(exports)


@exports.command("rl-data")
def rl_data(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER|FILE.jsonl", help="An imported folder, or a candidates file.")
    ],
    out: OutOpt,
    recipe: RowsOpt = None,
    pools: Annotated[
        Path | None,
        typer.Option("--pools", help="Pools of a candidates file, or a folder with them; else those beside it."),
    ] = None,
    originals: Annotated[
        Path | None,
        typer.Option("--originals", metavar="FOLDER", help="The imported folder that a candidates file came from."),
    ] = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Write candidates with their pools; what was imported goes out as it came in."""
    from leverplus_core.interchange.exporting import export_rl_data

    _show(out, "candidates", export_rl_data(source, out, load_rows(recipe, plugin), pools, originals), json)


@exports.command("beams")
def beams(
    source: Annotated[Path, typer.Argument(metavar="FOLDER|FILE.jsonl", help="A folder with beams, or a beams file.")],
    out: OutOpt,
    recipe: RowsOpt = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Write the sequences of a beam search; what was imported goes out as it came in."""
    from leverplus_core.interchange.exporting import export_beams

    _show(out, "sequences", export_beams(source, out, load_rows(recipe, plugin)), json)


@exports.command("embeddings")
def embeddings(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="An imported folder with embeddings.")],
    out: OutOpt,
    json: JsonOpt = False,
) -> None:
    """Write the tensor that was imported, to the bit."""
    from leverplus_core.interchange.exporting import export_embeddings

    _show(out, "rows", export_embeddings(source, out), json)


def _show(out: Path, rows: str, written: Written, json: bool) -> None:
    metadata = {"file": str(out), "questions": written.questions, rows: written.rows, "as imported": written.original}
    output.metadata(metadata, json)
