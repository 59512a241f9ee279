"""How much accuracy there is to gain, and how much of it a method gains: random, best baseline, method and oracle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from leverplus_core.errors import RegistryError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.methods import CEILING, FLOOR, Row, ordered_methods, pick_method
from leverplus_core.report.pairing import Member, Pairing, common_cells, members, split_name
from leverplus_core.report.primary import Best, Endpoint, best_baseline
from leverplus_core.report.tables import Grid, Remark, View, bracket, percent
from leverplus_core.statistics import Share, share_closed

SHARE = ("share", "share_low", "share_high")


def headroom_rows(registry: Registry, text: str) -> list[Row]:
    """For `RUN` or `RUN:METHOD`, at each number of shots and the largest sample, the share of the gap from the best
    baseline to the oracle that the method closes, and that of the gap from random; the method of a plain `RUN` is the
    one that was trained last. The oracle is the best that was measured: a lower bound of the best possible selector,
    so that of the true gap less is closed.

    Keys: method, shots, n, random (None where it was not evaluated), baseline (the best one's name, see
    `best_baseline`), baseline_accuracy, accuracy (the method's), oracle; share, share_low, share_high of the gap
    from the baseline and random_share, random_share_low, random_share_high of that from random (95%, bootstrapped over
    questions; None where the ends of the gap are indistinguishable, and from random where that is None).
    Raises RegistryError for an unknown run or method, or a run without an oracle or a baseline.
    """
    name, method = split_name(text)
    there = members(registry, name)
    run = next(iter(there.values())).run
    method = pick_method(run, there, method)
    best = best_baseline(registry, [run["id"]], list(there))
    if missing := CEILING if CEILING not in there else None if best else FLOOR:
        raise RegistryError(
            f"run {run['name']} did not evaluate '{missing}': there is no gap to take a share of.",
            f"Evaluated: {', '.join(ordered_methods(run, there))}.",
        )
    rows = gap_rows(Pairing(registry), {name: [found] for name, found in there.items()}, method, best)
    if not rows:
        raise RegistryError(f"{text} was evaluated at no number of shots that the oracle and a baseline were.", "")
    return rows


def gap_rows(pairing: Pairing, there: Mapping[str, Sequence[Member]], method: str, best: Best | None) -> list[Row]:
    """`headroom_rows` of `there`: method -> its seeded runs, whose scores are averaged per question; the intervals are
    over questions alone. Empty where the best baseline and the oracle were not evaluated where `method` was."""
    if best is None or CEILING not in there:
        return []
    return [row for shots in sorted(common_cells(there[method])) if (row := _row(pairing, there, method, best, shots))]


def _row(pairing: Pairing, there: Mapping[str, Sequence[Member]], method: str, best: Best, shots: int) -> Row | None:
    endpoint = Endpoint((shots,))
    names = [best.name, method, CEILING, *([FLOOR] if FLOOR in there else [])]
    sides = {name: endpoint.side(there[name]) for name in names}
    known = {name: side for name, side in sides.items() if side is not None}
    if not {best.name, method, CEILING} <= set(known):
        return None
    found = pairing.aligned(list(known.values()))
    if found is None:
        return None
    scores = dict(zip(known, found.sides, strict=True))
    means = {name: float(values.mean()) for name, values in scores.items()}
    row = {
        "method": method, "shots": shots, "n": found.n, FLOOR: means.get(FLOOR),
        "baseline": best.name, "baseline_accuracy": means[best.name], "accuracy": means[method],
        CEILING: means[CEILING],
    }  # fmt: skip
    for prefix, floor in (("", best.name), ("random_", FLOOR)):
        own = floor in scores and share_closed(scores[floor], scores[method], scores[CEILING], found.images)
        row |= {f"{prefix}{key}": value for key, value in zip(SHARE, _share(own or None), strict=True)}
    return row


def _share(found: Share | None) -> list[float | None]:
    if found is None:
        return [None] * len(SHARE)
    return [float(x) if math.isfinite(x) else None for x in (found.share, found.low, found.high)]


def headroom_table(rows: Sequence[Row]) -> View:
    """A row per number of shots, in percent, for 80 columns."""
    method, best = rows[0]["method"], rows[0]["baseline"]
    lines = [
        [
            str(row["shots"]),
            str(row["n"]),
            *gap_texts(row, "-"),
            _two(share_text(row)),
            _two(share_text(row, "random_")),
        ]
        for row in rows
    ]
    heads = ["shots", "n", FLOOR, best, method, CEILING, f"closed from\n{best}", "closed from\nrandom"]
    remark = (
        f"in %; the share of the gap from {best} (the best baseline), and from random, to {CEILING} that {method} "
        f"closes, with its 95% interval (bootstrap over questions); {CEILING} is the best that was measured, a lower "
        "bound of what can be reached"
    )
    return View([Grid(heads, lines, "n"), Remark(remark)])


def gap_texts(row: Row, absent: str) -> list[str]:
    """The accuracies of random, the best baseline, the method and the oracle in percent."""
    keys = (FLOOR, "baseline_accuracy", "accuracy", CEILING)
    return [absent if row[k] is None else percent(row[k]) for k in keys]


def share_text(row: Row, prefix: str = "") -> str:
    """`27.8 [21.5, 33.8]`: the share in percent and its interval; empty where no gap was seen."""
    share, low, high = (row[f"{prefix}{key}"] for key in SHARE)
    return "" if share is None else f"{percent(share)} {bracket(low, high)}"


def _two(text: str) -> str:
    """The interval below the share."""
    return text.replace(" [", "\n[", 1) or "no gap seen"
