"""`leverplus import ...`: what others made, brought in. One verb for each form of file.

A new form is one more function here, with `@imports.command("name")` above it.
"""

from __future__ import annotations

import typer

imports = typer.Typer(
    name="import",
    help="Bring in what others made: published tables, candidates, beams, embeddings.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    app.add_typer(imports)
