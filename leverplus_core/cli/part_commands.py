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

from leverplus_core.cli import output
from leverplus_core.cli.app import Commands, command

if TYPE_CHECKING:
    from leverplus_core.plugins.contracts import Part
    from leverplus_core.plugins.manager import Catalog


class PartCommands(Commands):
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

    def help_lines(self) -> dict[str, str]:
        """The first line of each part's docstring, read without importing it; a broken part shows its status."""
        entries = [entry for entry in self.catalog.checked_entries() if entry.kind == self.kind]
        return {e.name: _line(e.target) if e.status == "ok" else e.status for e in entries}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a part, imported; None for a name that no plugin has. Raises PluginError for a broken one."""
        if cmd_name not in self.list_commands(ctx):
            return None
        part = self.catalog.part_class(self.kind, cmd_name)
        action = self.action(part)
        own = inspect.signature(action, eval_str=True).parameters
        fixed = [own[name] for name in own if name not in ("name", "part")]
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
        try:
            return command(cmd_name, call)
        except Exception as error:  # a setting of a type that is no option
            from leverplus_core.plugins.commands import unusable

            raise unusable(self.catalog.entry(self.kind, cmd_name), error) from error


def _line(target: str) -> str:
    from leverplus_core.plugins.source import definition

    found = definition(target)
    text = ast.get_docstring(found) if isinstance(found, ast.ClassDef) else None
    return (text or "").partition("\n")[0]
