"""Verbs that list what there is: recipes and parts."""

from __future__ import annotations

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import JsonOpt, PluginOpt, load_catalog


def register(app: typer.Typer) -> None:
    app.command()(recipes)
    app.command()(plugins)


def recipes(json: JsonOpt = False) -> None:
    """List the bundled recipes."""
    from leverplus_core.recipes.loader import bundled

    rows = []
    for name, path in bundled().items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        rows.append({"name": name, "about": first.removeprefix("#").strip()})
    output.rows(rows, json)


def plugins(plugin: PluginOpt = None, json: JsonOpt = False) -> None:
    """List every part: name, kind, distribution, version, status."""
    entries = load_catalog(plugin).entries()
    fields = ("name", "kind", "distribution", "version", "status")
    output.rows([{field: getattr(entry, field) for field in fields} for entry in entries], json)
