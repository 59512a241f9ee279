"""A sweep as arms: runs that differ in their seed only are one arm, and every arm is compared with the first."""

from __future__ import annotations

from collections.abc import Sequence

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.registry.registry import Registry
from leverplus_core.report.comparison import difference_text, family_remarks, primary_remark
from leverplus_core.report.grid import Arm, grid_rows, primary_grid
from leverplus_core.report.headline import seeds_text
from leverplus_core.report.methods import Row, pick_method
from leverplus_core.report.pairing import members
from leverplus_core.report.tables import Block, Grid, Remark, Title, View, percent, shots_text


def sweep_rows(registry: Registry, sweep: str) -> list[Row]:
    """`primary_grid` and `grid_rows` of a sweep's arms, each with its seeds and the method trained last; the first that
    began is the baseline. The rows of the primary endpoint come first, with `primary`. Raises RegistryError for an
    unknown sweep, and for a run without a trained method."""
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
    cells = [row | {"primary": False} for row in grid_rows(registry, others, first)]
    return [*primary_grid(registry, others, first), *cells]


def sweep_table(rows: Sequence[Row]) -> View:
    """The primary endpoint, then a row per arm and number of shots at the largest sample, each with the difference to
    the first arm, for 80 columns."""
    primary, cells = [row for row in rows if row["primary"]], [row for row in rows if not row["primary"]]
    n = max(row["n"] for row in cells)
    blocks: list[Block] = []
    if primary:
        over = f"mean over {', '.join(map(str, primary[0]['over']))}"
        blocks += [Title(f"primary endpoint: {over} shots, n = {primary[0]['n']}"), _grid(over, primary), ""]
    for shots in sorted({row["shots"] for row in cells if row["n"] == n}):
        of_shots = [row for row in cells if (row["n"], row["shots"]) == (n, shots)]
        blocks += [_grid(shots_text(shots), of_shots), ""]
    if many := cells[0]["comparisons"]:
        blocks.append(Remark(f"accuracy in %, difference to the first arm in points; n = {n}"))
        blocks += [Remark(primary_remark(row["comparisons"])) for row in primary[-1:]]
        blocks += map(Remark, family_remarks(many)[1:])
    return View([*blocks, Remark(seeds_text(min(row["seeds"] for row in cells)))])


def _grid(head: str, rows: Sequence[Row]) -> Grid:
    lines = [[row["arm"], str(row["seeds"]), percent(row["accuracy"]), *_difference(row)] for row in rows]
    return Grid([head, "seeds", "accuracy", "difference", "mark"], lines, "wnnnm")


def _difference(row: Row) -> tuple[str, str]:
    return ("", "baseline") if row["baseline"] is None else (difference_text(row), row["mark"])
