"""How much there is to win, and how much of it a method wins: random, kNN, method and oracle on the same questions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.registry.registry import Registry
from leverplus_core.report.leaderboard import percent
from leverplus_core.report.pairing import Member, Pairing, Row, common_cells, members, split_name
from leverplus_core.statistics import share_closed

FLOOR, CEILING, NEIGHBOURS = "random", "oracle", "text_knn"
LEARNED_LAST_FIRST = ("online", "grpo", "rce", "sft")


def headroom_rows(registry: Registry, text: str) -> list[Row]:
    """For `RUN` or `RUN:METHOD`, at each number of shots and the largest sample, what the method closes of the gap from
    random to oracle; the method of a plain `RUN` is what was trained last.

    Keys: method, shots, n, random, text_knn (None where it was not evaluated), accuracy (the method's), oracle, share,
    share_low, share_high (95%, bootstrapped over questions; None where random and oracle cannot be told apart).
    Raises RegistryError for a run or method that is not there, or a run without random and oracle.
    """
    run, method = split_name(text)
    there = members(registry, run)
    method = chosen(there, method)
    for needed in (FLOOR, CEILING):
        if needed not in there:
            raise RegistryError(
                f"run {there[method].run['name']} did not evaluate '{needed}': there is no gap to take a share of.",
                f"Evaluated: {', '.join(sorted(there))}.",
            )
    rows = gap_rows(Pairing(registry), {name: [found] for name, found in there.items()}, method)
    if not rows:
        raise RegistryError(f"{text} was evaluated at no number of shots that random and oracle were.", "")
    return rows


def gap_rows(pairing: Pairing, there: Mapping[str, Sequence[Member]], method: str) -> list[Row]:
    """`headroom_rows` of `there`: method -> its seeded runs, whose scores are averaged a question; the intervals are
    over questions alone. Empty where random and oracle were not evaluated where `method` was."""
    if FLOOR not in there or CEILING not in there:
        return []
    return [row for shots in sorted(common_cells(there[method])) if (row := _row(pairing, there, method, shots))]


def chosen(there: Mapping[str, Member], method: str | None) -> str:
    """`method`, or without one what was trained last. Raises RegistryError where there is no such method."""
    run = next(iter(there.values())).run
    if method is not None and method not in there:
        raise RegistryError(f"no method '{method}' in run {run['name']} ({run['id']}).", did_you_mean(method, there))
    trained = [method] if method is not None else [m for m in LEARNED_LAST_FIRST if m in there]
    if not trained:
        raise RegistryError(f"run {run['name']} ({run['id']}) trained nothing.", "Name a method: RUN:METHOD.")
    return trained[0]


def _row(pairing: Pairing, there: Mapping[str, Sequence[Member]], method: str, shots: int) -> Row | None:
    names = [FLOOR, method, CEILING]
    if any(shots not in common_cells(there[name]) for name in names):
        return None
    if NEIGHBOURS in there and shots in common_cells(there[NEIGHBOURS]):
        names.append(NEIGHBOURS)
    pairs = pairing.pairs([m for name in names for m in there[name]], [], shots, shots)
    if pairs is None:
        return None
    ends = np.cumsum([len(there[name]) for name in names])[:-1]
    floor, own, ceiling, *rest = np.split(pairs.a, ends)
    found = share_closed(floor, own, ceiling, pairs.images)
    neighbours = float(rest[0].mean()) if rest else None
    return {
        "method": method,
        "shots": shots,
        "n": pairs.n,
        FLOOR: float(floor.mean()),
        NEIGHBOURS: neighbours,
        "accuracy": float(own.mean()),
        CEILING: float(ceiling.mean()),
        "share": _number(found.share),
        "share_low": _number(found.low),
        "share_high": _number(found.high),
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def headroom_table(rows: Sequence[Row]) -> RenderableType:
    """One line a number of shots, in percent; reads well at 80 columns."""
    if not rows:
        return Text("nothing to compare")
    method = rows[0]["method"]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), show_edge=False, pad_edge=False)
    for name in ("shots", "n", FLOOR, NEIGHBOURS, method, CEILING, "share of the gap"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        means = [row[FLOOR], row[NEIGHBOURS], row["accuracy"], row[CEILING]]
        if row["share"] is None:
            share = "no gap seen"
        else:
            ends = [row["share_low"], row["share_high"]]
            low, high = (percent(end) if end is not None else "?" for end in ends)
            share = f"{percent(row['share'])} [{low}, {high}]"
        cells = [str(row["shots"]), str(row["n"]), *("-" if m is None else percent(m) for m in means), share]
        table.add_row(*(Text(cell) for cell in cells))
    remark = (
        f"in %; the share of the gap from {FLOOR} to {CEILING} that {method} closes, with its 95% interval "
        "(bootstrap over questions)"
    )
    return Group(table, Text(remark, style="dim"))
