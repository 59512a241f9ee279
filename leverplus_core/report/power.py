"""How many questions an experiment like a recorded one needs, to see a difference of a given size."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leverplus_core.errors import RegistryError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.headroom import FLOOR, chosen
from leverplus_core.report.pairing import Pairing, Row, members, shot_pairs
from leverplus_core.statistics import POWER, detectable_difference, paired_difference, questions_needed

ALPHA = 0.05


def power_rows(
    registry: Registry,
    run: str,
    effect: float,
    method: str | None = None,
    baseline: str = FLOOR,
    power: float = POWER,
    comparisons: int | None = None,
) -> list[Row]:
    """For each number of shots, how many questions it takes to mark a difference of `effect` (0.01 is one point)
    between `method` (what was trained last) and `baseline` with chance `power`, at 5% for any false mark among
    `comparisons` (one for each number of shots).

    Pairing, spread and clusters are those of the run's largest sample. Keys: method, baseline, shots, n (questions
    asked), delta, detectable (the smallest difference that these n would mark), effect, power, comparisons, needed.
    Raises RegistryError for a run or method that is not there, DataError for an effect or a power out of its range.
    """
    there = members(registry, run)
    one, other = there[chosen(there, method)], there[chosen(there, baseline)]
    if one.method == other.method:
        raise RegistryError(f"'{one.method}' is both the method and the baseline.", "Name two: --method, --baseline.")
    cells = shot_pairs(one.cells, other.cells)
    family = comparisons if comparisons is not None else len(cells)
    pairing, rows = Pairing(registry), list[Row]()
    for shots, base_shots in cells:
        pairs = pairing.pairs([one], [other], shots, base_shots)
        if pairs is None:
            continue
        found = paired_difference(pairs.a, pairs.b, pairs.images)
        rows.append(
            {
                "method": one.method,
                "baseline": other.method,
                "shots": max(shots, base_shots),
                "n": pairs.n,
                "delta": found.delta,
                "detectable": detectable_difference(found, ALPHA, family, power),
                "effect": effect,
                "power": power,
                "comparisons": family,
                "needed": questions_needed(found, effect, ALPHA, family, power),
            }
        )
    if not rows:
        raise RegistryError(f"{one.method} and {other.method} answered no question in common.", "Nothing to pair.")
    return rows


def power_table(rows: Sequence[Row]) -> RenderableType:
    """One line a number of shots; reads well at 80 columns."""
    if not rows:
        return Text("nothing to compare")
    first = rows[0]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False, pad_edge=False)
    for name in ("shots", "n", "a - b", "n can show", f"n for {100 * first['effect']:.3g} points"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = (row["shots"], row["n"], f"{100 * row['delta']:+.1f}", f"{100 * row['detectable']:.1f}", row["needed"])
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else cell) for cell in cells))
    many = first["comparisons"]
    remarks = (
        f"differences in points, shown {100 * first['power']:.3g} times in 100 where they are there",
        f"{many} comparison{'' if many == 1 else 's'}, 5% for any false mark; spread and pairing as in this run",
    )
    title = Text(f"a = {first['method']}\nb = {first['baseline']}", style="bold")
    return Group(title, table, *(Text(remark, style="dim") for remark in remarks))
