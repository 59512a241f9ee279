"""A sweep as arms: runs that differ in their seed only are one, and every arm stands against the first."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.registry.registry import Registry
from leverplus_core.report.comparison import family_remarks
from leverplus_core.report.grid import Arm, grid_rows
from leverplus_core.report.headroom import chosen
from leverplus_core.report.leaderboard import percent
from leverplus_core.report.pairing import Row, members


def sweep_arms(registry: Registry, sweep: str, method: str | None = None) -> list[Arm]:
    """The arms of a sweep in the order in which they began, each with its seeds; `method` None takes the last trained.

    Raises RegistryError for a sweep that is not there.
    """
    runs = [row for row in reversed(registry.runs()) if row["sweep"] == sweep]
    if not runs:
        known = {row["sweep"] for row in registry.runs() if row["sweep"]}
        raise RegistryError(f"no sweep '{sweep}' in the registry.", did_you_mean(sweep, known))
    arms: dict[str, list[str]] = {}
    for row in sorted(runs, key=lambda row: str(row["created_at"])):
        label = ", ".join(str(value) for value in (row["arm"] or {}).values()) or "all"
        arms.setdefault(label, []).append(f"{row['id']}:{chosen(members(registry, row['id']), method)}")
    return [Arm(label, tuple(names)) for label, names in arms.items()]


def sweep_rows(registry: Registry, sweep: str, method: str | None = None) -> list[Row]:
    """`grid_rows` of a sweep's arms against its first, at every number of shots and sample size."""
    first, *others = sweep_arms(registry, sweep, method)
    return grid_rows(registry, others, first)


def sweep_table(rows: Sequence[Row]) -> RenderableType:
    """An arm a line at the largest sample, with the difference to the first arm; reads well at 80 columns."""
    if not rows:
        return Text("nothing evaluated yet")
    n = max(row["n"] for row in rows)
    shown = [row for row in rows if row["n"] == n]
    parts: list[RenderableType] = []
    for shots in sorted({row["shots"] for row in shown}):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), show_edge=False, pad_edge=False)
        table.add_column(f"{shots} shot{'' if shots == 1 else 's'}", overflow="fold")
        for head in ("seeds", "accuracy", "difference", "mark"):
            table.add_column(head, justify="left" if head == "mark" else "right", no_wrap=True)
        for row in (row for row in shown if row["shots"] == shots):
            difference = ""
            if row["baseline"] is not None:
                low, high = 100 * row["corrected_low"], 100 * row["corrected_high"]
                difference = f"{100 * row['delta']:+.1f} [{low:+.1f}, {high:+.1f}]"
            cells = (row["arm"], str(row["seeds"]), percent(row["accuracy"]), difference, row["mark"] or "the baseline")
            table.add_row(*(Text(cell) for cell in cells))
        parts += [table, Text("")]
    remarks = (
        []
        if rows[0]["comparisons"] == 0
        else [
            f"accuracy in %, difference to the first arm in points; n = {n}",
            *family_remarks(rows[0]["comparisons"])[1:],
        ]
    )
    return Group(*parts, *(Text(line, style="dim") for line in remarks))
