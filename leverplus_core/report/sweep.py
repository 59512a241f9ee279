"""A sweep as arms: runs that differ in their seed only are one arm, and every arm is compared with the first."""

from __future__ import annotations

from collections.abc import Sequence

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.registry.registry import Registry
from leverplus_core.report.comparison import difference_text, family_remarks
from leverplus_core.report.grid import Arm, grid_rows
from leverplus_core.report.methods import Row, pick_method
from leverplus_core.report.pairing import members
from leverplus_core.report.tables import Block, Grid, Remark, View, percent, shots_text


def sweep_rows(registry: Registry, sweep: str) -> list[Row]:
    """`grid_rows` of a sweep's arms, each with its seeds and the method trained last; the first that began is the
    baseline. Raises RegistryError for an unknown sweep, and for a run without a trained method."""
    runs = [row for row in reversed(registry.runs()) if row["sweep"] == sweep]
    if not runs:
        known = {row["sweep"] for row in registry.runs() if row["sweep"]}
        raise RegistryError(f"no sweep '{sweep}' in the registry.", did_you_mean(sweep, known))
    arms: dict[str, list[str]] = {}
    for row in sorted(runs, key=lambda row: str(row["created_at"])):
        label = ", ".join(str(value) for value in (row["arm"] or {}).values()) or "all"
        method = pick_method(row, members(registry, row["id"]), None)
        arms.setdefault(label, []).append(f"{row['id']}:{method}")
    first, *others = [Arm(label, tuple(names)) for label, names in arms.items()]
    return grid_rows(registry, others, first)


def sweep_table(rows: Sequence[Row]) -> View:
    """A row per arm at the largest sample, with the difference to the first arm, for 80 columns."""
    n = max(row["n"] for row in rows)
    blocks: list[Block] = []
    for shots in sorted({row["shots"] for row in rows if row["n"] == n}):
        lines = [
            [row["arm"], str(row["seeds"]), percent(row["accuracy"]), *_difference(row)]
            for row in rows
            if (row["n"], row["shots"]) == (n, shots)
        ]
        blocks += [Grid([shots_text(shots), "seeds", "accuracy", "difference", "mark"], lines, "wnnnm"), ""]
    if many := rows[0]["comparisons"]:
        blocks.append(Remark(f"accuracy in %, difference to the first arm in points; n = {n}"))
        blocks += map(Remark, family_remarks(many)[1:])
    return View(blocks)


def _difference(row: Row) -> tuple[str, str]:
    return ("", "baseline") if row["baseline"] is None else (difference_text(row), row["mark"])
