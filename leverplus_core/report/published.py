"""The arithmetic of published tables: differences, means and tallies as exact decimals, and what they can tell.

A published table has no predictions, so nothing in it can be paired by question. What stands in for the paired
interval is that of two independent samples of the sizes that the table names; it is marked as unpaired everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import groupby
from statistics import mean

from leverplus_core.errors import RegistryError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.methods import Row
from leverplus_core.report.pairing import ALPHA, Member, shot_pairs
from leverplus_core.report.tables import Block, Grid, Remark, Title, View, shots_text
from leverplus_core.statistics import unpaired_interval


def unpaired_rows(registry: Registry, pairs: Sequence[tuple[Member, Member]], a: str, b: str) -> list[Row]:
    """a - b for each of `pairs` at each number of shots and sample size that both name, then the means of these.

    `a` and `b` are the runs' labels. Keys as in `compare_rows`, all from exact decimals; what needs predictions is
    None (p_value, p_holm, detectable), `paired` is False and the intervals are unpaired. `a_text`, `b_text` and
    `delta_text` are the decimals in percent and points; `cells` is how many cells a row is the mean of, 1 for a cell;
    rows of means have None for what they are a mean over (shots, n, or both) and no interval; `wins`, `losses` and
    `ties` count the cells where a is above, below and equal to b. Raises RegistryError where there is no common cell,
    or the datasets are known and differ.
    """
    ours, theirs = pairs[0][0].run, pairs[0][1].run
    if ours["dataset"] and theirs["dataset"] and ours["dataset"] != theirs["dataset"]:
        where = f"{ours['name']} ({ours['id']}) and {theirs['name']} ({theirs['id']})"
        raise RegistryError(f"{where} are of other datasets: {ours['dataset']} and {theirs['dataset']}.", "")
    rows: list[Row] = []
    for one, other in pairs:
        mine, their = _percents(registry, one), _percents(registry, other)
        names = {"a_name": f"{a}:{one.method}", "b_name": f"{b}:{other.method}"}
        for shots_a, shots_b in shot_pairs(one.cells, other.cells):
            for n in sorted(one.cells[shots_a] & other.cells[shots_b]):
                rows.append({**names, **_difference(max(shots_a, shots_b), n, mine[shots_a, n], their[shots_b, n])})
    if not rows:
        raise RegistryError(f"{a} and {b} have no number of shots and sample size in common.", "Nothing to compare.")
    for row in rows:
        low, high = unpaired_interval(row["a"], row["n"], row["b"], row["n"], 1 - ALPHA / len(rows))
        verdict = "a better" if low > 0 else "b better" if high < 0 else "no difference seen"
        row |= {"corrected_low": low, "corrected_high": high, "comparisons": len(rows), "verdict": verdict}
    return [row for _, group in groupby(rows, key=_names) for row in _with_means(list(group))]


def _percents(registry: Registry, member: Member) -> dict[tuple[int, int], Decimal]:
    """(shots, n) -> accuracy in percent: as printed, or for a run of our own to ten decimals."""
    cells = registry.cells([member.run["id"]], method=member.method)
    return {
        (c["shots"], c["n"]): Decimal(c["accuracy_text"]) if c["accuracy_text"] else _ten(c["accuracy"]) for c in cells
    }


def _ten(accuracy: float) -> Decimal:
    return Decimal(f"{100 * accuracy:.10f}").normalize()


def _difference(shots: int | None, n: int | None, a: Decimal, b: Decimal) -> Row:
    row: Row = {"shots": shots, "n": n, "a": float(a / 100), "b": float(b / 100), "delta": float((a - b) / 100)}
    row |= {"a_text": f"{a:f}", "b_text": f"{b:f}", "delta_text": signed(a - b)}
    row |= {"ci_low": None, "ci_high": None, "corrected_low": None, "corrected_high": None}
    row |= {"p_value": None, "p_holm": None, "detectable": None, "paired": False, "cells": 1, "verdict": None}
    if n is not None and shots is not None:
        row["ci_low"], row["ci_high"] = unpaired_interval(row["a"], n, row["b"], n)
    return row | {"wins": int(a > b), "losses": int(a < b), "ties": int(a == b)}


def _with_means(cells: list[Row]) -> list[Row]:
    """The cells of one pair of names, then their means over all, by shots and by sample size."""

    def over(some: list[Row], shots: int | None, n: int | None) -> Row:
        a, b = (mean(Decimal(row[key]) for row in some) for key in ("a_text", "b_text"))
        counts = {key: sum(row[key] for row in some) for key in ("cells", "wins", "losses", "ties")}
        named = {key: cells[0][key] for key in ("a_name", "b_name", "comparisons")}
        return {**named, **_difference(shots, n, a, b), **counts}

    rows = [over(cells, None, None)]
    for key in ("shots", "n"):
        for value in sorted({row[key] for row in cells}):
            some = [row for row in cells if row[key] == value]
            rows.append(over(some, value, None) if key == "shots" else over(some, None, value))
    return cells + rows


def _names(row: Row) -> tuple[str, str]:
    return row["a_name"], row["b_name"]


def signed(points: Decimal) -> str:
    """Exact points with their sign; zero without one."""
    return f"{points:+f}" if points else f"{points:f}".lstrip("-")


UNPAIRED = (
    "accuracy in % and a - b in points, exact decimals. Without predictions nothing",
    "can be paired: the interval is unpaired, that of two samples of n each, which is",
    "conservative for methods that answered the same questions and for graded scores.",
)


def unpaired_table(rows: Sequence[Row]) -> View:
    """For each pair of names its cells and its means, at 80 columns."""
    blocks: list[Block] = []
    for (a, b), group in groupby(rows, key=_names):
        shown = list(group)
        cells = [
            [str(row["shots"]), str(row["n"]), *exact_texts(row), _corrected(row), row["verdict"]]
            for row in shown
            if row["verdict"]
        ]
        means = [
            [_over(row), str(row["cells"]), *exact_texts(row), *(str(row[key]) for key in ("wins", "losses", "ties"))]
            for row in shown
            if not row["verdict"]
        ]
        blocks += [
            Title(f"a = {a}\nb = {b}"),
            Grid(("shots", "n", "a", "b", "a - b", "unpaired", "verdict"), cells, "nnnnnnm"),
            Grid(("mean over", "cells", "a", "b", "a - b", "a above", "below", "equal"), means, "n"),
            "",
        ]
    blocks += map(Remark, UNPAIRED)
    if (count := rows[0]["comparisons"]) > 1:
        remark = f"{count} comparisons were made: intervals are corrected for all of them (Bonferroni)."
        blocks.append(Remark(remark))
    return View(blocks)


def _corrected(row: Row) -> str:
    return f"[{100 * row['corrected_low']:+.1f}, {100 * row['corrected_high']:+.1f}]"


def _over(row: Row) -> str:
    if row["shots"] is not None:
        return shots_text(row["shots"])
    return "all cells" if row["n"] is None else f"n = {row['n']}"


def exact_texts(row: Row) -> list[str]:
    """a, b and a - b of an unpaired row as exact decimals, cut only where they are longer than anyone reads."""
    values = [Decimal(row[key]) for key in ("a_text", "b_text", "delta_text")]
    a, b, delta = (
        value if -int(value.as_tuple().exponent) <= 6 else value.quantize(Decimal("0.0001")) for value in values
    )
    return [f"{a:f}", f"{b:f}", signed(delta)]
