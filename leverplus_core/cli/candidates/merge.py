"""`leverplus candidates merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.candidates import OutOpt
from leverplus_core.cli.options import JsonOpt


def merge(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Candidates files.")],
    out: OutOpt,
    json: JsonOpt = False,
) -> None:
    """Merge candidates files by question and ordered demonstrations; conflicting measurements are an error."""
    from leverplus_core.candidates.merge import merge_files
    from leverplus_core.report.health import summary_table

    metadata = merge_files(files, out)
    output.table(metadata, lambda f: summary_table([*f["inputs"], f["union"]]), json)
    output.say(f"{metadata['equal']:,} candidates were in more than one place, with equal measurements")
