"""How much accuracy there is to gain, and how much of it a method gains: random, text_knn, method and oracle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from leverplus_core.errors import RegistryError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.methods import CEILING, FLOOR, NEIGHBORS, Row, ordered_methods, pick_method
from leverplus_core.report.pairing import Member, Pairing, common_cells, members, split_name
from leverplus_core.report.tables import Grid, Remark, View, bracket, percent
from leverplus_core.statistics import share_closed


def headroom_rows(registry: Registry, text: str) -> list[Row]:
    """For `RUN` or `RUN:METHOD`, at each number of shots and the largest sample, the share of the gap from random to
    oracle that the method closes; the method of a plain `RUN` is the one that was trained last.

    Keys: method, shots, n, random, text_knn (None where it was not evaluated), accuracy (the method's), oracle, share,
    share_low, share_high (95%, bootstrapped over questions; None where random and oracle are indistinguishable).
    Raises RegistryError for an unknown run or method, or a run without random and oracle.
    """
    name, method = split_name(text)
    there = members(registry, name)
    run = next(iter(there.values())).run
    method = pick_method(run, there, method)
    for needed in (FLOOR, CEILING):
        if needed not in there:
            raise RegistryError(
                f"run {run['name']} did not evaluate '{needed}': there is no gap to take a share of.",
                f"Evaluated: {', '.join(ordered_methods(run, there))}.",
            )
    rows = gap_rows(Pairing(registry), {name: [found] for name, found in there.items()}, method)
    if not rows:
        raise RegistryError(f"{text} was evaluated at no number of shots that random and oracle were.", "")
    return rows


def gap_rows(pairing: Pairing, there: Mapping[str, Sequence[Member]], method: str) -> list[Row]:
    """`headroom_rows` of `there`: method -> its seeded runs, whose scores are averaged per question; the intervals are
    over questions alone. Empty where random and oracle were not evaluated where `method` was."""
    if FLOOR not in there or CEILING not in there:
        return []
    return [row for shots in sorted(common_cells(there[method])) if (row := _row(pairing, there, method, shots))]


def _row(pairing: Pairing, there: Mapping[str, Sequence[Member]], method: str, shots: int) -> Row | None:
    names = [FLOOR, method, CEILING]
    if any(shots not in common_cells(there[name]) for name in names):
        return None
    if NEIGHBORS in there and shots in common_cells(there[NEIGHBORS]):
        names.append(NEIGHBORS)
    pairs = pairing.pairs([m for name in names for m in there[name]], [], shots, shots)
    if pairs is None:
        return None
    ends = np.cumsum([len(there[name]) for name in names])[:-1]
    floor, own, ceiling, *rest = np.split(pairs.a, ends)
    found = share_closed(floor, own, ceiling, pairs.images)
    means = [float(scores.mean()) for scores in (floor, own, ceiling, *rest)]
    share, low, high = (float(x) if math.isfinite(x) else None for x in (found.share, found.low, found.high))
    return {
        "method": method, "shots": shots, "n": pairs.n, FLOOR: means[0], NEIGHBORS: means[3] if rest else None,
        "accuracy": means[1], CEILING: means[2], "share": share, "share_low": low, "share_high": high,
    }  # fmt: skip


def headroom_table(rows: Sequence[Row]) -> View:
    """A row per number of shots, in percent, for 80 columns."""
    method = rows[0]["method"]
    lines = [[str(row["shots"]), str(row["n"]), *gap_texts(row, "-"), share_text(row) or "no gap seen"] for row in rows]
    heads = ["shots", "n", FLOOR, NEIGHBORS, method, CEILING, "share of the gap"]
    remark = (
        f"in %; the share of the gap from {FLOOR} to {CEILING} that {method} closes, with its 95% interval "
        "(bootstrap over questions)"
    )
    return View([Grid(heads, lines, "n"), Remark(remark)])


def gap_texts(row: Row, absent: str) -> list[str]:
    """The accuracies of random, text_knn, the method and the oracle in percent."""
    return [absent if row[k] is None else percent(row[k]) for k in (FLOOR, NEIGHBORS, "accuracy", CEILING)]


def share_text(row: Row) -> str:
    """`27.8 [21.5, 33.8]`: the share in percent and its interval; empty where no gap was seen."""
    if row["share"] is None:
        return ""
    return f"{percent(row['share'])} {bracket(row['share_low'], row['share_high'])}"
