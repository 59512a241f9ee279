"""A command per part: `leverplus import NAME` and `leverplus export NAME`.

The help page lists parts without importing them; a part is imported when its command is called, and its settings are
options of the command.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from leverplus_core.cli import output
from leverplus_core.errors import PluginError, did_you_mean

if TYPE_CHECKING:
    from leverplus_core.plugins.contracts import Part
    from leverplus_core.plugins.manager import Catalog


class PartCommands(TyperGroup):
    """The parts of one kind as commands. A subclass says what each does, `action`."""

    kind: ClassVar[str]

    def action(self, part: type[Part]) -> Callable[..., None]:
        """The function behind a command: called with a built part, its name, and options of its own by name."""
        raise NotImplementedError

    @cached_property
    def catalog(self) -> Catalog:
        """All plugins; each that cannot be used is one warning."""
        from leverplus_core.plugins.manager import Catalog

        catalog = Catalog.load()
        for warning in catalog.warnings:
            output.warn(warning)
        return catalog

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the parts."""
        return self.catalog.names(self.kind)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The first line of each part's docstring, read without importing it; a broken part shows its status."""
        entries = [entry for entry in self.catalog.checked_entries() if entry.kind == self.kind]
        with formatter.section("Commands"):
            formatter.write_dl([(e.name, _line(e.target) if e.status == "ok" else e.status) for e in entries])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer's, but a part that does not exist is one line that names the others."""
        names = self.list_commands(ctx)
        if args[0] not in names and not args[0].startswith("-"):
            raise PluginError(f"no {self.kind} named '{args[0]}'.", did_you_mean(args[0], names))
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a part, imported; None for a name that no plugin has. Raises PluginError for a broken one."""
        if cmd_name not in self.list_commands(ctx):
            return None
        part = self.catalog.part_class(self.kind, cmd_name)
        action = self.action(part)
        fixed = [
            p for p in inspect.signature(action, eval_str=True).parameters.values() if p.name not in ("name", "part")
        ]
        settings = [
            inspect.Parameter(
                field,
                inspect.Parameter.KEYWORD_ONLY,
                default=info.get_default(call_default_factory=True),
                annotation=Annotated[info.annotation, typer.Option(help=info.description)],
            )
            for field, info in part.model_fields.items()
        ]

        def call(**given: Any) -> None:
            chosen = {field: given.pop(field) for field in part.model_fields}
            action(self.catalog.build(self.kind, cmd_name, chosen), cmd_name, **given)

        call.__signature__ = inspect.Signature([*fixed, *settings])  # type: ignore[attr-defined]
        call.__annotations__ = {}
        call.__doc__ = inspect.getdoc(part)
        single = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        single.command(cmd_name)(call)
        return typer.main.get_command(single)


def _line(target: str) -> str:
    from leverplus_core.plugins.source import definition

    found = definition(target)
    text = ast.get_docstring(found) if isinstance(found, ast.ClassDef) else None
    return (text or "").partition("\n")[0]
