"""`leverplus recipes`."""

from __future__ import annotations

from leverplus_core.cli import output
from leverplus_core.cli.options import JsonOpt


def recipes(json: JsonOpt = False) -> None:
    """List the bundled recipes."""
    from leverplus_core.recipes.loader import bundled

    rows = []
    for name, path in bundled().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        rows.append({"name": name, "about": first.removeprefix("#").strip()})
    output.rows(rows, json)
