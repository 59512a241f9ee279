"""Commands that plugins add to the command line: entry points, listed with their help without importing them."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from leverplus_core.errors import LeverplusError, PluginError
from leverplus_core.plugins.calls import describe, raised
from leverplus_core.plugins.installed import canonical, disabled_distributions, installed
from leverplus_core.plugins.manager import NAME, Entry, by_name, import_target, title
from leverplus_core.plugins.source import definition

GROUP = "leverplus.commands"

COMMAND = "command"


def command_entries(taken: Collection[str]) -> tuple[list[Entry], list[str]]:
    """The commands that plugins add, sorted by name, and one warning for each that cannot be used; imports none.

    A command is an entry point of the group `leverplus.commands`: its name is the words of the command, its value
    `module:function`. `taken` are leverplus's own first words.
    """
    points, damaged = installed(GROUP)
    off = disabled_distributions()
    kept = [p for p in points if canonical(p.distribution) not in off]
    entries = [Entry(COMMAND, " ".join(p.name.split()), p.value, p.distribution, p.version) for p in kept]
    claims, warnings = by_name(entries, (COMMAND,))
    found: list[Entry] = []
    for entry in (entry for claimants in claims.values() for entry in claimants):
        status = entry.status
        if status == "ok":
            status = _command_defect(entry, taken)
            if status != "ok":
                warnings.append(f"{title(entry)} is {status}.")
        found.append(replace(entry, status=status))
    return found, damaged + warnings


def _command_defect(entry: Entry, taken: Collection[str]) -> str:
    if not all(entry.target.partition(":")):
        return f"not used: it must point to 'module:function', not '{entry.target}'"
    if not all(NAME.fullmatch(word) for word in entry.name.split()) or not entry.name:
        return "not used: its name is not made of words (letters, digits, '_', '-' and '.')"
    if entry.name.partition(" ")[0] in taken:
        return "not used: leverplus has a command of this name"
    try:
        found = definition(entry.target)
    except Exception as error:  # a file that cannot be read or parsed
        return f"broken: {describe(error)}"
    return f"broken: {entry.target} is not a function" if isinstance(found, ast.ClassDef) else "ok"


def command_help(target: str) -> str:
    """The docstring of a command's function, read from its source without importing it; '' where it cannot be."""
    try:
        found = definition(target)
    except (ImportError, AttributeError, SyntaxError, OSError):
        return ""
    return (ast.get_docstring(found) or "") if isinstance(found, ast.FunctionDef) else ""


def command_function(entry: Entry) -> Callable[..., Any]:
    """Import the function behind a command. Raises PluginError, which names the distribution, when it is none."""
    if entry.status != "ok":
        raise PluginError(f"{title(entry)} is {entry.status}.")
    found = import_target(entry)
    if not inspect.isfunction(found):
        raise PluginError(f"{title(entry)}: {entry.target} is not a function.")

    @functools.wraps(found)  # typer reads its signature
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return found(*args, **kwargs)
        except BrokenPipeError:  # its reader has closed the pipe
            raise
        except Exception as error:
            if isinstance(error, LeverplusError) or type(error).__module__.partition(".")[0] in ("typer", "click"):
                raise
            raise raised(title(entry), error) from error

    return call


def unusable(entry: Entry, error: BaseException) -> PluginError:
    """The error for a command whose function is no typer command; it names the distribution."""
    return PluginError(f"{title(entry)}: {entry.target} is not a command: {describe(error)}.")
