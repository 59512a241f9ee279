"""The balancing table of the Lever-Plus report: the candidates before and after, and the settings that were not met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leverplus_core.report.tables import Grid, View, stacked


def balance_table(metadata: Mapping[str, Any]) -> View:
    """The metadata of the stage `balance` as a table; rates in percent, their change in percentage points."""
    lines = []
    for name, before in metadata["before"].items():
        show, unit = (_percent, " pp") if name == "positive_rate" else (_number, "")
        change = f"{show(metadata['change'][name], '+')}{unit}".replace("%", "")
        lines.append([name.replace("_", " "), show(before), show(metadata["after"][name]), change])
    total = metadata["before"]["questions"]
    shortfall = [[why, f"{n:,}", _percent(n / total)] for why, n in metadata["shortfall"].items()]
    change_table = Grid(["", "before", "after", "change"], lines, gap=1)
    return stacked(change_table, *([Grid(["not met", "questions", "of all"], shortfall, gap=1)] if shortfall else []))


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign},.2f}" if isinstance(value, float) else f"{value:{sign},}"


def _percent(value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.2f}%"
