"""`leverplus plugins show`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leverplus_core.cli import completion, output
from leverplus_core.cli.options import JsonOpt, PluginOpt, load_catalog
from leverplus_core.errors import PluginError, did_you_mean

if TYPE_CHECKING:
    from rich.console import RenderableType

    from leverplus_core.plugins.manager import Catalog, Entry


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=completion.any_part, help="Name of a part.")],
    kind: Annotated[str | None, typer.Option(help="Of parts with this name in several kinds, the one to show.")] = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Show a part: what it does, its settings with types, defaults and bounds, how to use it, and where it is from."""
    catalog = load_catalog(plugin)
    entries = [e for e in catalog.entries() if e.kind and e.name == name and kind in (None, e.kind)]
    if not entries:
        names = {entry.name for entry in catalog.entries() if entry.kind and kind in (None, entry.kind)}
        raise PluginError(f"no {kind or 'part'} is named '{name}'.", did_you_mean(name, names))
    for entry in entries:
        if entry.status != "ok":
            catalog.entry(entry.kind, entry.name)  # raises with both claimants
    output.table([_described(catalog, entry) for entry in entries], _view, json)


def _described(catalog: Catalog, entry: Entry) -> dict[str, Any]:
    import inspect
    from dataclasses import asdict

    from leverplus_core.plugins import described

    part = catalog.part_class(entry.kind, entry.name)
    try:
        file = inspect.getfile(part)
    except (OSError, TypeError):  # a class made by a program
        file = ""
    return {
        "kind": entry.kind,
        "name": entry.name,
        "about": described.about(part),
        "use": described.usage(entry.kind, entry.name, part),
        "settings": [asdict(setting) for setting in described.settings(part)],
        "schema": described.schema(part),
        "distribution": entry.distribution,
        "version": entry.version,
        "class": entry.target,
        "file": file,
    }


def _view(parts: Sequence[dict[str, Any]]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    drawn: list[RenderableType] = []
    for part in parts:
        origin = f"{part['distribution']} {part['version']}".strip()
        drawn += [Text(f"{part['kind']} '{part['name']}' of {origin}"), Text(""), Text(part["about"]), Text("")]
        table = Table(box=None, pad_edge=False)
        for column in ("setting", "type", "default", "bounds"):
            # What one copies from here, the name, stays in one piece.
            table.add_column(column, overflow="fold", no_wrap=column == "setting")
        for row in part["settings"]:
            table.add_row(*(Text(str(row[key])) for key in ("name", "type", "default", "bounds")))
        drawn.append(table if part["settings"] else Text("It has no settings."))
        meanings = [f"{row['name']}: {row['meaning']}" for row in part["settings"] if row["meaning"]]
        drawn += [Text(""), *map(Text, meanings)] if meanings else []
        drawn += [Text(""), Text(f"Use it:  {part['use']}"), Text(f"Class:   {part['class']}")]
        drawn += [Text(f"File:    {part['file']}"), Text("")] if part["file"] else [Text("")]
    return Group(*drawn[:-1])
