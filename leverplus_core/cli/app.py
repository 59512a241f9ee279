"""The command and its verbs: each module below registers its own when it is imported, in the order of the help page.

Plugins add verbs through the hook `leverplus_verbs`; they are looked for only where a verb is not one of ours, and
listed after them.
"""

from __future__ import annotations

import importlib
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from leverplus_core.cli import output
from leverplus_core.errors import PluginError

if TYPE_CHECKING:
    from leverplus_core.plugins.manager import Catalog


class Verbs(TyperGroup):
    """Our own verbs, and those of plugins."""

    @cached_property
    def _catalogue(self) -> Catalog:
        from leverplus_core.plugins.manager import Catalog

        return Catalog.load()

    def list_commands(self, ctx: Any) -> list[str]:
        ours = super().list_commands(ctx)
        found = []
        for name in self._catalogue.names("verb"):
            try:
                if name in ours:
                    raise PluginError(f"verb '{name}' of a plugin is leverplus's own: the plugin's is not used.")
                self._catalogue.verb(name)
                found.append(name)
            except PluginError as error:  # a broken plugin must not take the help page with it
                output.warn(str(error))
        return [*ours, *found]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if (ours := super().get_command(ctx, cmd_name)) is not None:
            return ours
        if ("verb", cmd_name) not in {(entry.kind, entry.name) for entry in self._catalogue.entries()}:
            return None
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        single.command(cmd_name)(self._catalogue.verb(cmd_name))
        return typer.main.get_command(single)


app = typer.Typer(
    name="leverplus",
    cls=Verbs,
    help="Choose the demonstrations to show a vision-language model, learn the choice, and say whether it helped.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

VERBS = (
    "job",
    "sweep",
    "preparation",
    "data",
    "catalogue",
    "leaderboard",
    "report",
    "show",
    "verify",
    "results",
    "evidence",
    "imports",
    "exports",
)
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
