"""`leverplus plugins new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leverplus_core.cli import output

KIND_HELP = (
    "dataset, model, encoder, sampler, selector, baseline, balancer, reward, trainer, stage, importer, exporter or "
    "listener."
)


def new(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=KIND_HELP)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the part: lower-case words, such as top_two.")],
    into: Annotated[Path, typer.Option(help="The folder in which the project's folder is made.")] = Path("."),
) -> None:
    """Write a small project with a part of your own, ready to install: the part, its tests, a README, a CI file."""
    from leverplus_core.plugins.scaffold import write_project

    folder = write_project(kind, name, into)
    output.say(f"wrote {folder}. Next: cd {folder} && pip install -e '.[test]' && pytest")
    print(folder)
