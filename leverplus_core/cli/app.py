"""The command and its subcommands, each imported when it is called.

Help lines are read from the commands' sources, so that `leverplus --help` imports none of them: neither ours nor those
that plugins add through the entry-point group `leverplus.commands`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Union

import typer
from typer.core import TyperGroup

from leverplus_core.cli import output
from leverplus_core.errors import LeverplusError, did_you_mean
from leverplus_core.text import shown

if TYPE_CHECKING:
    from leverplus_core.plugins.manager import Entry

Target = Union[str, "Entry"]
"""`module:function` of a command of ours, or the entry of a plugin's."""

COMMANDS: Mapping[str, Target] = {
    "run": "leverplus_core.cli.run:run",
    "sweep": "leverplus_core.cli.sweep:sweep",
    "validate": "leverplus_core.cli.validate:validate",
    "plan": "leverplus_core.cli.plan:plan",
    "audit": "leverplus_core.cli.audit:audit",
    "candidates inspect": "leverplus_core.cli.candidates.inspect:inspect",
    "candidates merge": "leverplus_core.cli.candidates.merge:merge",
    "candidates balance": "leverplus_core.cli.candidates.balance:balance",
    "runs": "leverplus_core.cli.runs.list:runs",
    "runs rename": "leverplus_core.cli.runs.rename:rename",
    "runs tag": "leverplus_core.cli.runs.tag:tag",
    "runs note": "leverplus_core.cli.runs.note:note",
    "runs delete": "leverplus_core.cli.runs.delete:delete",
    "leaderboard": "leverplus_core.cli.leaderboard:leaderboard",
    "compare": "leverplus_core.cli.compare:compare",
    "headroom": "leverplus_core.cli.headroom:headroom",
    "power": "leverplus_core.cli.power:power",
    "report": "leverplus_core.cli.report:report",
    "show": "leverplus_core.cli.show:show",
    "view": "leverplus_core.cli.view:view",
    "sql": "leverplus_core.cli.sql:sql",
    "registry copy": "leverplus_core.cli.registry.copy:copy",
    "cache": "leverplus_core.cli.cache.list:cache",
    "cache prune": "leverplus_core.cli.cache.prune:prune",
    "recipes": "leverplus_core.cli.recipes:recipes",
    "recipes show": "leverplus_core.cli.recipes:show",
    "plugins": "leverplus_core.cli.plugins.list:plugins",
    "plugins show": "leverplus_core.cli.plugins.show:show",
    "plugins new": "leverplus_core.cli.plugins.new:new",
    "doctor": "leverplus_core.cli.doctor:doctor",
    "import": "leverplus_core.cli.imports:Importers",
    "export": "leverplus_core.cli.exports:Exporters",
}
"""Words -> "module:function" of a command, or "module:Class" of a group; in the order of the help page."""

OWN_WORDS = frozenset(words.partition(" ")[0] for words in COMMANDS)
"""The first words of our commands; a plugin cannot add a command that begins with one of them."""

GROUPS = {
    "candidates": "Inspect, merge and balance files of measured candidates.",
    "registry": "Copy a registry to another database: SQLite to PostgreSQL, and back.",
    "import": "Import what others measured: samples of other harnesses, published tables, Lever-Plus files.",
    "export": "Export candidates, beams and embeddings to files that others read.",
    "data": "Check your own questions and pictures, begin a recipe for them, or download official ones.",
}
"""The help line of a group."""

SETTINGS: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}


class Commands(TyperGroup):
    """A group whose commands are found by name and imported when they are called."""

    own: Mapping[str, Target] = COMMANDS

    @cached_property
    def _added(self) -> Mapping[str, Target]:
        """The commands of plugins, looked for only where a command is none of ours, and for the help page."""
        if self.own is not COMMANDS:
            return {}
        from leverplus_core.plugins.commands import command_entries

        entries, warnings = command_entries(OWN_WORDS)
        for warning in warnings:
            output.warn(warning)
        return {entry.name: entry for entry in entries}

    def list_commands(self, ctx: Any) -> list[str]:
        """The first words of all commands, ours before those of plugins."""
        return list(dict.fromkeys(words.partition(" ")[0] for words in (*self.own, *self._added)))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, imported, or the group of those that begin with it; None where there is none.

        Raises PluginError, which names the distribution, when a plugin's command cannot be used.
        """
        return _find(self.own, cmd_name) or _find(self._added, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer's, but a command that does not exist is one line that says which ones do."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            words = " ".join([*ctx.command_path.split()[1:], args[0]])
            raise LeverplusError(f"no command '{words}'.", did_you_mean(args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """A group without a command shows its help, unless it is a command as well."""
        return super().parse_args(ctx, args or ([] if self.invoke_without_command else ["--help"]))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The first line of each command's docstring, read without importing it."""
        with formatter.section("Commands"):
            formatter.write_dl([(shown(word), shown(line)) for word, line in self.help_lines().items()])

    def help_lines(self) -> dict[str, str]:
        """Command -> its line on the help page."""
        table = {**self._added, **self.own}
        lines = {word: _line(table, word) for word in self.list_commands(None)}
        return {word: GROUPS.get(word, line) for word, line in lines.items()} if self.own is COMMANDS else lines


def _find(table: Mapping[str, Target], word: str) -> Any:
    if word in table:
        target = table[word]
        if not isinstance(target, str):
            from leverplus_core.plugins.commands import command_function, unusable

            function = command_function(target)
            try:
                return command(word, function)
            except Exception as error:  # annotations that typer cannot read
                raise unusable(target, error) from error
        module, _, name = target.partition(":")
        found = getattr(importlib.import_module(module), name)
        if isinstance(found, type):
            return _group(word, found)
        return _with_commands(word, found, _below(table, word))
    if below := _below(table, word):
        group = _group(word, Commands, _names(below))
        group.own = below
        return group
    return None


def _with_commands(word: str, function: Callable[..., Any], below: Mapping[str, Target]) -> Any:
    """The command behind a function; where there are commands below it, the group that is this command without one."""
    if not below:
        return command(word, function)

    def call(ctx: typer.Context, **given: Any) -> None:
        if ctx.invoked_subcommand is None:
            function(**given)

    own = inspect.signature(function, eval_str=True)
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    call.__signature__ = own.replace(parameters=[context, *own.parameters.values()])  # type: ignore[attr-defined]
    call.__annotations__, call.__doc__ = {}, inspect.getdoc(function)
    made = typer.Typer(name=word, cls=Commands, **SETTINGS)
    made.callback(invoke_without_command=True)(call)
    group: Any = typer.main.get_group(made)
    group.own = below
    return _plain(group)


def _group(word: str, cls: type[Commands], text: str = "") -> Commands:
    return cls(name=word, help=GROUPS.get(word, text), rich_markup_mode=None)


def command(word: str, function: Callable[..., Any]) -> Any:
    """The command `word` behind a function, whose annotated arguments are its options."""
    single = typer.Typer(**SETTINGS)
    single.command(word)(function)
    return _plain(typer.main.get_command(single))


_VALUES = {"Path": "PATH", "str": "TEXT", "int": "N", "float": "NUMBER"}


def _plain(made: Any) -> Any:
    """The command with a word for each value, where typer's help page has a type of Python such as `<list[Path]>`."""
    for param in made.params:
        if (bare := getattr(param, "bare_type", None)) is None:  # an older typer, which has such words itself
            continue
        if param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: ""
            if param.metavar:  # the usage line has its own marks of what may be left out or repeated
                param.metavar = re.sub(r"^\[(.*)\]$", r"\1", param.metavar.removesuffix("..."))
        elif param.metavar is None:
            param.metavar = _VALUES.get(bare().removeprefix("list[").removesuffix("]"))
    return made


def _line(table: Mapping[str, Target], word: str) -> str:
    target = table.get(word)
    if target is None:
        return _names(_below(table, word))
    if isinstance(target, str):
        target_text = target
    elif target.status != "ok":
        return target.status
    else:
        target_text = target.target
    from leverplus_core.plugins.commands import command_help

    return command_help(target_text).partition("\n")[0]


def _below(table: Mapping[str, Target], word: str) -> dict[str, Target]:
    """The commands whose first word this is, by the words after it."""
    return {words.partition(" ")[2]: target for words, target in table.items() if words.startswith(f"{word} ")}


def _names(below: Mapping[str, Target]) -> str:
    return f"Commands: {', '.join(below)}."


app = typer.Typer(
    name="leverplus",
    cls=Commands,
    help="Choose the demonstrations to show a vision-language model, learn the choice, and say whether it helped.",
    **{**SETTINGS, "add_completion": True},
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(version("leverplus"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version
