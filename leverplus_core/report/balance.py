"""The Lever-Plus report's balancing table: a question set before and after, and what could not be met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text


def balance_table(metadata: Mapping[str, Any]) -> RenderableType:
    """`groups.balance_metadata` as a table; shares in percent, their change in percentage points."""
    shapes = _table("", "before", "after", "change")
    for name, before in metadata["before"].items():
        cell, unit = (_percent, " pp") if name.startswith("share") else (_number, "")
        change = f"{cell(metadata['change'][name], '+')}{unit}".replace("%", "")
        shapes.add_row(name.replace("_", " "), cell(before), cell(metadata["after"][name]), change)
    if not metadata["unmet"]:
        return shapes
    shortfall = _table("could not be met", "questions", "of all")
    for why, count in metadata["unmet"].items():
        shortfall.add_row(Text(why), f"{count:,}", _percent(count / metadata["before"]["questions"]))
    return Group(shapes, Text(""), shortfall)


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign},.2f}" if isinstance(value, float) else f"{value:{sign},}"


def _percent(value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.2f}%"
