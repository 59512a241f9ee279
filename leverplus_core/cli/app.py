"""The command and its verbs: each module below registers its own when it is imported, in the order of the help page."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

app = typer.Typer(
    name="leverplus",
    help="Choose the demonstrations to show a vision-language model, learn the choice, and say whether it helped.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

VERBS = ("job", "preparation", "data", "catalogue", "leaderboard", "show", "results", "evidence", "imports", "exports")
"""Modules of `leverplus_core.cli`; none imports torch, numpy or pydantic before a verb is called."""


def _version(value: bool) -> None:
    if value:
        from leverplus_core import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


for module in VERBS:
    importlib.import_module(f"leverplus_core.cli.{module}").register(app)
