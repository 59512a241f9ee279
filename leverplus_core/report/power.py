"""How many questions an experiment like a recorded one needs to detect a difference of a given size."""

from __future__ import annotations

from collections.abc import Sequence

from leverplus_core.errors import RegistryError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.methods import FLOOR, Row, pick_method
from leverplus_core.report.pairing import ALPHA, Pairing, members, shot_pairs
from leverplus_core.report.primary import best_baseline
from leverplus_core.report.tables import Grid, Remark, Title, View, percent, points
from leverplus_core.statistics import POWER, detectable_difference, paired_difference, questions_needed


def power_rows(
    registry: Registry,
    run: str,
    effect: float,
    method: str | None = None,
    baseline: str | None = None,
    power: float = POWER,
    comparisons: int | None = None,
) -> list[Row]:
    """For each number of shots, how many questions it takes to mark a difference of `effect` (0.01 is one point)
    between `method` (the one trained last) and `baseline` (the run's best) with chance `power`, at 5% for any false
    mark among `comparisons` (one for each number of shots).

    Pairing, spread and clusters are those of the run's largest sample. Keys: method, baseline, shots, n
    (questions), delta, detectable (the smallest difference that these n would mark), effect, power, comparisons,
    needed. Raises RegistryError for an unknown run or method, DataError for an effect or a power out of its range.
    """
    there = members(registry, run)
    known = next(iter(there.values())).run
    if baseline is None:
        best = best_baseline(registry, [known["id"]], list(there))
        baseline = FLOOR if best is None else best.name
    one, other = (there[pick_method(known, there, m)] for m in (method, baseline))
    if one.method == other.method:
        raise RegistryError(f"'{one.method}' is both the method and the baseline.", "Name two: --method, --baseline.")
    cells = shot_pairs(one.cells, other.cells)
    family = comparisons if comparisons is not None else len(cells)
    pairing, rows = Pairing(registry), list[Row]()
    for shots, base_shots in cells:
        if (pairs := pairing.pairs([one], [other], shots, base_shots)) is None:
            continue
        found = paired_difference(pairs.a, pairs.b, pairs.images)
        rows.append({
            "method": one.method, "baseline": other.method, "shots": max(shots, base_shots), "n": pairs.n,
            "delta": found.delta, "detectable": detectable_difference(found, ALPHA, family, power),
            "effect": effect, "power": power, "comparisons": family,
            "needed": questions_needed(found, effect, ALPHA, family, power),
        })  # fmt: skip
    if not rows:
        raise RegistryError(f"{one.method} and {other.method} answered no question in common.", "Nothing to pair.")
    return rows


def power_table(rows: Sequence[Row]) -> View:
    """A row per number of shots, for 80 columns."""
    first, many = rows[0], rows[0]["comparisons"]
    lines = [
        [str(r["shots"]), f"{r['n']:,}", points(r["delta"]), percent(r["detectable"]), f"{r['needed']:,}"] for r in rows
    ]
    heads = ["shots", "n", "a - b", "detectable with n", f"n for {100 * first['effect']:.3g} points"]
    return View([
        Title(f"a = {first['method']}\nb = {first['baseline']}"),
        Grid(heads, lines, "n", gap=1),
        Remark(f"differences in points, detected {100 * first['power']:.3g} times in 100 where they exist"),
        Remark(f"{many} comparison{'' if many == 1 else 's'}, 5% for any false mark; spread as in this run"),
    ])  # fmt: skip
