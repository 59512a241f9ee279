"""Two methods, or two runs, on the same questions: the paired difference and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.registry.registry import Registry
from leverplus_core.report.methods import Row, merged_order, ordered_methods
from leverplus_core.report.pairing import (
    Member,
    Pairing,
    differences,
    member,
    members,
    refuse_other_questions,
    split_name,
    with_corrections,
)  # fmt: skip
from leverplus_core.report.primary import Endpoint, difference
from leverplus_core.report.published import unpaired_rows, unpaired_table
from leverplus_core.report.tables import Block, Grid, Remark, Title, View, interval, percent, points
from leverplus_core.statistics import Mark, PairedDifference

VERDICTS: dict[Mark, str] = {
    "better": "a better", "worse": "b better", "no difference seen": "no difference seen",
}  # fmt: skip


def compare_rows(
    registry: Registry,
    a: str,
    b: str,
    method: Sequence[str] = (),
    shots: Sequence[int] = (),
    n: Sequence[int] = (),
) -> list[Row]:
    """a - b for each number of shots, over the questions that both answered, at the largest sample or those of `n`.

    `method` (where a run stands for its methods) and `shots` leave others out. What is left out is not part of the
    family that is corrected for: smaller samples are nested in the largest, and say the same with less.

    `a` and `b` are `run` or `run:method`, the run by id, start of an id, name or `latest`.
    - `run:method` and `run:method`: those two; the rows' `a_name` and `b_name` are such labels.
    - two runs: every method that both have, named in the key `method`; `a_name` and `b_name` are the runs' labels.
    - a run and `run:method`: every method of that run with the one (not with itself).
    Where one of them is a published table nothing can be paired: see `unpaired_rows`.
    A method recorded at 0 shots only (zero_shot) is compared with every number of shots of the other. Questions about
    one image are one cluster. All rows together are one family (see `with_corrections`).

    Keys: shots, n (questions compared), left_out (questions of the sample that only one of them answered), a, b
    (accuracies in [0, 1]), a_name, b_name, delta, ci_low, ci_high, p_value, corrected_low, corrected_high, p_holm,
    comparisons (rows of the family), detectable (the smallest true difference that would be seen 8 times in 10) and
    verdict. Raises RegistryError for an unknown run, method, number of shots or size, different datasets, metrics or
    splits, or no question in common.
    """
    pairs, label_a, label_b = _pairs(registry, a, b, method)
    pairs = _narrowed(pairs, shots, n)
    if any(one.run["source"] == "published" for one in pairs[0] if pairs):
        return unpaired_rows(registry, pairs, label_a, label_b)
    pairing = Pairing(registry)
    found: list[tuple[Row, PairedDifference]] = []
    for one, other in pairs:
        names = _names(a, b, (label_a, label_b), (one, other))
        every = {(at, size): (sample, d) for at, size, sample, d in differences(pairing, [one], [other])}
        largest = {at: size for at, size in every}  # sizes of one number of shots ascend
        for (at, size), (sample, d) in every.items():
            if not n and size < largest[at]:
                continue
            row = {
                "shots": at, "n": sample.n, "left_out": _nominal(one, other, size) - sample.n,
                "a": float(sample.a.mean()), "b": float(sample.b.mean()),
                "delta": d.delta, "ci_low": d.low, "ci_high": d.high, "p_value": d.p_value,
            }  # fmt: skip
            found.append((row | names, d))
    if not found:
        raise RegistryError(f"{a} and {b} answered no question in common at any number of shots.", "Nothing to pair.")
    return [row | {"verdict": VERDICTS[row.pop("mark")]} for row in with_corrections(found)]


def _nominal(one: Member, other: Member, size: int) -> int:
    """The size of the sample: of logs, which may be of fewer questions the one than the other, the larger's."""
    if "imported" not in (one.run["source"], other.run["source"]):
        return size
    return max(n for member in (one, other) for sizes in member.cells.values() for n in sizes)


def primary_rows(registry: Registry, a: str, b: str, method: Sequence[str] = ()) -> list[Row]:
    """a - b on the primary endpoint, a row for each pair of methods that `compare_rows` compares: the mean over the
    numbers of shots at the largest sample, or over what `evaluation.primary` of the first run says.

    Keys as in `compare_rows`, a family of their own; `primary` is True, `shots` None and `over` the numbers of shots
    of the mean. Empty for published tables, and for methods that share no number of shots. Raises RegistryError as
    `compare_rows`.
    """
    pairs, *labels = _pairs(registry, a, b, method)
    if any("published" in (one.run["source"], other.run["source"]) for one, other in pairs):
        return []
    pairing = Pairing(registry)
    found: list[tuple[Row, PairedDifference]] = []
    for one, other in pairs:
        if (pair := difference(pairing, Endpoint.of(one.run, ()), [one], [other])) is not None:
            row, d = pair
            own = {
                "primary": True, "shots": None, "over": row["over"], "n": row["questions"],
                "left_out": row["left_out"], "a": row["accuracy"], "b": row["baseline_accuracy"],
                "delta": d.delta, "ci_low": d.low, "ci_high": d.high, "p_value": d.p_value,
            }  # fmt: skip
            found.append((own | _names(a, b, (labels[0], labels[1]), (one, other)), d))
    return [row | {"verdict": VERDICTS[row.pop("mark")]} for row in with_corrections(found)]


def _names(a: str, b: str, labels: tuple[str, str], pair: tuple[Member, Member]) -> Row:
    """The two sides of a row: methods of runs, or where both `a` and `b` are runs the runs and their method."""
    if split_name(a)[1] is None and split_name(b)[1] is None:
        return {"a_name": labels[0], "b_name": labels[1], "method": pair[0].method}
    return {"a_name": f"{labels[0]}:{pair[0].method}", "b_name": f"{labels[1]}:{pair[1].method}"}


def _pairs(
    registry: Registry, a: str, b: str, method: Sequence[str] = ()
) -> tuple[list[tuple[Member, Member]], str, str]:
    """The pairs of methods (those of which a side that names none has one of `method`), and the two runs' labels: their
    names, or ids where both have the same name."""
    (run_a, method_a), (run_b, method_b) = split_name(a), split_name(b)
    left = members(registry, run_a) if method_a is None else {method_a: member(registry, a)}
    right = members(registry, run_b) if method_b is None else {method_b: member(registry, b)}
    one, other = next(iter(left.values())).run, next(iter(right.values())).run
    if "published" not in (one["source"], other["source"]):
        refuse_other_questions([one, other])
    key = "id" if one["name"] == other["name"] and one["id"] != other["id"] else "name"
    chosen = [(m, k) for m in left for k in right]
    if method_a is None and method_b is None:
        chosen = [(m, k) for m, k in chosen if m == k]
    elif one["id"] == other["id"] and (method_a is None or method_b is None):
        chosen = [(m, k) for m, k in chosen if m != k]
    if method:
        free = {m for named, there in ((method_a, left), (method_b, right)) if named is None for m in there}
        if unknown := [m for m in method if m not in free]:
            hint = did_you_mean(unknown[0], free) if free else "--method chooses among the methods of a RUN."
            raise RegistryError(f"no method '{unknown[0]}' to compare in {a} and {b}.", hint)
        chosen = [
            (m, k) for m, k in chosen if (method_a is not None or m in method) and (method_b is not None or k in method)
        ]
    place = merged_order([ordered_methods(one, left), ordered_methods(other, right)]).index
    chosen.sort(key=lambda pair: (place(pair[0]), place(pair[1])))
    return [(left[m], right[k]) for m, k in chosen], str(one[key]), str(other[key])


def _narrowed(
    pairs: Sequence[tuple[Member, Member]], shots: Sequence[int], n: Sequence[int]
) -> list[tuple[Member, Member]]:
    """The pairs with no other cells than these; a method at 0 shots only keeps them, as it is compared with all.

    Raises RegistryError for a number of shots or a size that no pair has."""
    cells = [member.cells for pair in pairs for member in pair]
    for what, wanted, known in (
        ("number of shots", shots, {at for there in cells for at in there}),
        ("sample of size", n, {size for there in cells for sizes in there.values() for size in sizes}),
    ):
        if unknown := [value for value in wanted if value not in known]:
            raise RegistryError(
                f"no {what} {unknown[0]} was evaluated.", f"Known: {', '.join(map(str, sorted(known)))}."
            )

    def narrowed(member: Member) -> Member:
        kept = {
            at: sizes for at, sizes in member.cells.items() if not shots or at in shots or member.cells.keys() == {0}
        }
        return replace(member, cells={at: some for at, sizes in kept.items() if (some := sizes & set(n or sizes))})

    return [(narrowed(one), narrowed(other)) for one, other in pairs]


def compare_table(rows: Sequence[Row]) -> View:
    """For each pair of labels the primary endpoint, where `rows` have it, above its cells; in percent and points, for
    80 columns."""
    if not rows[0].get("paired", True):
        return unpaired_table(rows)
    primary, cells = [row for row in rows if row.get("primary")], [row for row in rows if not row.get("primary")]
    blocks: list[Block] = []
    for (a, b), group in groupby(cells, key=lambda row: (row["a_name"], row["b_name"])):
        shown, first = list(group), [row for row in primary if (row["a_name"], row["b_name"]) == (a, b)]
        blocks.append(Title(f"a = {a}\nb = {b}"))
        if first:
            over = ", ".join(map(str, first[0]["over"]))
            blocks += [f"primary endpoint: mean over {over} shots", _grid(first), "", "by number of shots and sample"]
        blocks += [_grid(shown), *map(Remark, _remarks(shown)), ""]
    if primary:
        blocks.append(Remark(primary_remark(primary[0]["comparisons"])))
    return View([*blocks, *map(Remark, family_remarks(cells[0]["comparisons"]))])


def primary_remark(comparisons: int) -> str:
    """Why the primary endpoint has an interval that is not corrected for the cells."""
    if comparisons == 1:
        return "the primary endpoint is one comparison of its own: its interval is not corrected."
    return f"the {comparisons} primary comparisons are corrected for each other (Holm), and not for the cells."


def difference_text(row: Row) -> str:
    """`+1.2 [-0.5, +2.9]`: the difference in points and its corrected interval."""
    return f"{points(row['delta'])} {interval(row['corrected_low'], row['corrected_high'])}"


def family_remarks(comparisons: int) -> list[str]:
    """What a reader of corrected intervals must know: how many comparisons were made, and what a mark means."""
    if comparisons == 1:
        return [
            "accuracy in %, a - b in points on the same questions with its 95% interval.",
            "1 comparison was made: no correction. The verdict follows from the interval.",
        ]
    return [
        "accuracy in %, a - b in points on the same questions with its corrected interval.",
        f"{comparisons} comparisons were made: intervals and p are corrected for all of them (Holm, 5% for any false "
        "verdict). The verdict follows from the interval.",
    ]


def _remarks(rows: Sequence[Row]) -> list[str]:
    largest: dict[int, float] = {}
    for row in rows:
        largest[row["n"]] = max(largest.get(row["n"], 0.0), row["detectable"])
    seen = ", ".join(f"{percent(difference)} (n = {n})" for n, difference in sorted(largest.items()))
    lines = [f"smallest difference that would have been seen, 8 times in 10: {seen}"]
    if left_out := max(row["left_out"] for row in rows):
        lines.append(f"left out of a sample, as only one of the two answered them: up to {left_out} questions")
    return lines


def _grid(rows: Sequence[Row]) -> Grid:
    by_method = ["method"] if "method" in rows[0] else []
    lines = []
    for row in rows:
        p = f"{row['p_holm']:.3f}" if row["p_holm"] >= 0.001 else "<0.001"
        counts, means = (
            ["mean" if row["shots"] is None else str(row["shots"]), str(row["n"])],
            [percent(row["a"]), percent(row["b"])],
        )
        lines.append([*(row[k] for k in by_method), *counts, *means, difference_text(row), p, row["verdict"]])
    heads = [*by_method, "shots", "n", "a", "b", "a - b", "p", "verdict"]
    return Grid(heads, lines, "w" * len(by_method) + "nnnnnnm")
