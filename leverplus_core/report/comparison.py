"""Two methods, or two runs, on the same questions: the paired difference and whether it can be told from none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leverplus_core.errors import RegistryError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.leaderboard import method_order, percent
from leverplus_core.report.pairing import (
    Member,
    Pairing,
    Row,
    member,
    members,
    nested,
    refuse_other_questions,
    shot_pairs,
    split_name,
)
from leverplus_core.report.published import unpaired_rows, unpaired_table
from leverplus_core.statistics import Mark, PairedDifference, corrected, detectable_difference, paired_difference

VERDICTS: dict[Mark, str] = {
    "better": "a better",
    "worse": "b better",
    "no difference seen": "no difference seen",
}


def compare_rows(registry: Registry, a: str, b: str) -> list[Row]:
    """a - b for each number of shots and each nested sample size, over the questions that both answered.

    `a` and `b` are `run` or `run:method`, the run by id, start of an id, name or `latest`.
    - `run:method` against `run:method`: those two; the rows' `a` and `b` are such labels.
    - two runs: every method that both have, named in the key `method`; `a` and `b` are the runs' labels.
    - a run against `run:method`: every method of that run against the one (not against itself).
    Where a side is a published table nothing can be paired: see `unpaired_rows`.
    A method recorded at 0 shots only (zero_shot) is set against every number of shots of the other side. The interval
    takes questions about one image as one cluster. All rows together are one family: the verdict follows from the
    corrected interval alone (see `statistics.corrected`).

    Keys: shots, n (questions compared), left_out (how many of the sample were not: one side alone answered them), a, b
    (accuracies in [0, 1]), a_name, b_name, delta, ci_low, ci_high, p_value, corrected_low, corrected_high, p_holm,
    comparisons (rows of the family), detectable (the smallest true difference that would be seen 8 times in 10) and
    verdict. Raises RegistryError for an unknown run or method, another dataset, metric or split, or no question in
    common.
    """
    pairs, label_a, label_b = _pairs(registry, a, b)
    if pairs and _unpaired(pairs[0]):
        return unpaired_rows(registry, pairs, label_a, label_b)
    pairing = Pairing(registry)
    found: list[tuple[Row, PairedDifference]] = []
    for one, other in pairs:
        by_method = split_name(a)[1] is None and split_name(b)[1] is None
        names = (
            {"a_name": label_a, "b_name": label_b, "method": one.method}
            if by_method
            else {"a_name": f"{label_a}:{one.method}", "b_name": f"{label_b}:{other.method}"}
        )
        found += [(row | names, difference) for row, difference in _cells(pairing, one, other)]
    if not found:
        raise RegistryError(f"{a} and {b} answered no question in common at any number of shots.", "Nothing to pair.")
    fixed = corrected([difference for _, difference in found])
    return [
        row
        | {
            "corrected_low": c.low,
            "corrected_high": c.high,
            "p_holm": c.p_holm,
            "comparisons": c.comparisons,
            "detectable": detectable_difference(difference, comparisons=c.comparisons),
            "verdict": VERDICTS[c.mark],
        }
        for (row, difference), c in zip(found, fixed, strict=True)
    ]


def _pairs(registry: Registry, a: str, b: str) -> tuple[list[tuple[Member, Member]], str, str]:
    """Which methods are compared, and the two runs' labels: their names, or ids where both have the same name."""
    (run_a, method_a), (run_b, method_b) = split_name(a), split_name(b)
    left = members(registry, run_a) if method_a is None else {method_a: member(registry, a)}
    right = members(registry, run_b) if method_b is None else {method_b: member(registry, b)}
    one, other = next(iter(left.values())).run, next(iter(right.values())).run
    if "published" not in (one["source"], other["source"]):
        refuse_other_questions([one, other])
    key = "id" if one["name"] == other["name"] and one["id"] != other["id"] else "name"
    if method_a is None and method_b is None:
        chosen = [(m, m) for m in left.keys() & right.keys()]
    else:
        chosen = [(m, k) for m in left for k in right]
        if method_a is None or method_b is None:
            chosen = [(m, k) for m, k in chosen if one["id"] != other["id"] or m != k]
    chosen.sort(key=lambda pair: (method_order(pair[0]), method_order(pair[1])))
    return [(left[m], right[k]) for m, k in chosen], str(one[key]), str(other[key])


def _unpaired(pair: tuple[Member, Member]) -> bool:
    """A published table has no predictions to pair."""
    return any(side.run["source"] == "published" for side in pair)


def _cells(pairing: Pairing, one: Member, other: Member) -> list[tuple[Row, PairedDifference]]:
    found: list[tuple[Row, PairedDifference]] = []
    for shots_a, shots_b in shot_pairs(one.cells, other.cells):
        pairs = pairing.pairs([one], [other], shots_a, shots_b)
        if pairs is None:
            continue
        for size, sample in nested(pairs, sorted(one.cells[shots_a] | other.cells[shots_b])):
            difference = paired_difference(sample.a, sample.b, sample.images)
            row = {
                "shots": max(shots_a, shots_b),
                "n": sample.n,
                "left_out": size - sample.n,
                "a": float(sample.a.mean()),
                "b": float(sample.b.mean()),
                "delta": difference.delta,
                "ci_low": difference.low,
                "ci_high": difference.high,
                "p_value": difference.p_value,
            }
            found.append((row, difference))
    return found


def compare_table(rows: Sequence[Row]) -> RenderableType:
    """One table for each pair of labels, in percent and percentage points; reads well at 80 columns."""
    if not rows:
        return Text("nothing to compare")
    if not rows[0].get("paired", True):
        return unpaired_table(rows)
    parts: list[RenderableType] = []
    for (a, b), group in groupby(rows, key=lambda row: (row["a_name"], row["b_name"])):
        shown = list(group)
        parts += [Text(f"a = {a}\nb = {b}", style="bold"), _table(shown)]
        parts += [Text(line, style="dim") for line in _remarks(shown)]
        parts.append(Text(""))
    parts += [Text(line, style="dim") for line in family_remarks(rows[0]["comparisons"])]
    return Group(*parts)


def family_remarks(comparisons: int) -> list[str]:
    """What a reader of corrected intervals must know: how many comparisons were made, and what a mark means."""
    if comparisons == 1:
        return [
            "accuracy in %, a - b in points on the same questions with its 95% interval.",
            "1 comparison was made: nothing to correct. The verdict follows from the interval.",
        ]
    return [
        "accuracy in %, a - b in points on the same questions with its corrected interval.",
        f"{comparisons} comparisons were made: intervals and p are corrected for all of them (Holm,",
        "5% for any false verdict). The verdict follows from the interval.",
    ]


def _remarks(rows: Sequence[Row]) -> list[str]:
    largest: dict[int, float] = {}
    for row in rows:
        largest[row["n"]] = max(largest.get(row["n"], 0.0), row["detectable"])
    seen = ", ".join(f"{100 * points:.1f} (n = {n})" for n, points in sorted(largest.items()))
    lines = [f"smallest difference that would have been seen, 8 times in 10: {seen}"]
    if left_out := max(row["left_out"] for row in rows):
        lines.append(f"only one side answered up to {left_out} questions of a sample: they are left out")
    return lines


def _table(rows: Sequence[Row]) -> Table:
    by_method = "method" in rows[0]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), show_edge=False, pad_edge=False)
    if by_method:
        table.add_column("method", overflow="fold")
    for name in ("shots", "n", "a", "b", "a - b", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        low, high = 100 * row["corrected_low"], 100 * row["corrected_high"]
        p = f"{row['p_holm']:.3f}" if row["p_holm"] >= 0.001 else "<0.001"
        counts, means = [str(row["shots"]), str(row["n"])], [percent(row["a"]), percent(row["b"])]
        cells = [*counts, *means, f"{100 * row['delta']:+.1f} [{low:+.1f}, {high:+.1f}]", p, row["verdict"]]
        table.add_row(*(Text(c) for c in ([row["method"], *cells] if by_method else cells)))
    return table
