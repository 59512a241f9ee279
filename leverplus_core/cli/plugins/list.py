"""`leverplus plugins`: what is installed, and whether it can be used."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import JsonOpt, PluginOpt, load_catalog

FIELDS = ("name", "kind", "distribution", "version", "status")


def plugins(
    plugin: PluginOpt = None,
    check: Annotated[
        bool, typer.Option("--check", help="Import every part, and end with exit code 1 when one is broken.")
    ] = False,
    json: JsonOpt = False,
) -> None:
    """List every part, listener, tracker and command: name, kind, distribution, version, status.

    The status is found without importing parts: `ok` says that the source is there and defines the class. Only --check
    imports each part and holds it to its contract.
    """
    from leverplus_core.cli.app import OWN_WORDS
    from leverplus_core.plugins.commands import command_entries
    from leverplus_core.plugins.trackers import tracker_entries

    catalog = load_catalog(plugin)
    commands, warnings = command_entries(OWN_WORDS)
    trackers, more = tracker_entries()
    for warning in dict.fromkeys((*warnings, *more)):
        if warning not in catalog.warnings:  # a damaged distribution is found twice
            output.warn(warning)
    entries = [*catalog.checked_entries(by_import=check), *catalog.hearing, *trackers, *commands]
    output.rows([{field: getattr(entry, field) for field in FIELDS} for entry in entries], json)
    if check and any(entry.status.startswith("broken") for entry in entries):
        raise typer.Exit(1)
