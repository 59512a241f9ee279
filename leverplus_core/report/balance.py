"""The balancing table of the Lever-Plus report: the candidates before and after, and the settings that were not met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leverplus_core.report.tables import Block, Grid, View


def balance_table(metadata: Mapping[str, Any]) -> View:
    """The metadata of the stage `balance` as a table; rates in percent, their change in percentage points."""
    lines = []
    for name, before in metadata["before"].items():
        show, unit = (_percent, " pp") if name == "positive_rate" else (_number, "")
        change = f"{show(metadata['change'][name], '+')}{unit}".replace("%", "")
        lines.append([name.replace("_", " "), show(before), show(metadata["after"][name]), change])
    blocks: list[Block] = [Grid(["", "before", "after", "change"], lines, gap=1)]
    if metadata["shortfall"]:
        total = metadata["before"]["questions"]
        lines = [[why, f"{n:,}", _percent(n / total)] for why, n in metadata["shortfall"].items()]
        blocks += ["", Grid(["not met", "questions", "of all"], lines, gap=1)]
    return View(blocks)


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign},.2f}" if isinstance(value, float) else f"{value:{sign},}"


def _percent(value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.2f}%"
