"""Every arm of an experiment compared with its baseline, cell by cell, as one family of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leverplus_core.errors import RegistryError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.methods import Row
from leverplus_core.report.pairing import (
    SAME,
    Member,
    Pairing,
    Pairs,
    common_cells,
    differences,
    member,
    nested,
    refuse_other_questions,
    with_corrections,
)  # fmt: skip
from leverplus_core.report.primary import Endpoint, difference, family
from leverplus_core.statistics import PairedDifference, accuracy_interval


@dataclass(frozen=True)
class Arm:
    """One way of doing the experiment: a label and one or several `RUN:METHOD`, the seeded runs of that way. `primary`:
    whether its comparison with the baseline is one that conclusions rest on, or exploratory."""

    label: str
    members: tuple[str, ...]
    primary: bool = True


def grid_rows(registry: Registry, arms: Sequence[Arm], baseline: Arm) -> list[Row]:
    """The cells of every arm at every number of shots and nested sample size, with the difference to the baseline.

    The baseline's own cells come first (`baseline` None), then each arm's in the order given, by shots and n. An arm
    that has the baseline's members is left out: a method is not compared with itself. Questions are paired; those
    about one image are one cluster; an arm of several runs has the score of each question averaged over them, and
    their spread in its intervals. All comparisons of the grid are one family (see `with_corrections`).

    Keys of a row, accuracies and differences in units of accuracy (0.01 is one point):
    - arm, baseline (labels), method, shots, n (the nominal sample size), seeds, baseline_seeds (numbers of runs);
    - questions: how many were compared; left_out: n less that, the questions of the sample that not all answered;
    - accuracy, ci_low, ci_high (95%, not corrected), baseline_accuracy: over the questions compared;
    - delta (accuracy - baseline_accuracy), delta_low, delta_high (95%, not corrected), p_value;
    - corrected_low, corrected_high, p_holm, mark, comparisons, detectable: see `with_corrections`;
    - wins, losses, ties: questions on which the arm scores higher, lower, the same.
    In the baseline's rows everything from baseline_accuracy on is None, and comparisons the size of the family.

    A baseline at 0 shots only (zero_shot) is compared with every number of shots of an arm. Raises RegistryError for
    an unknown run or method, for different datasets, metrics or splits, and where an arm and the baseline have no
    cell, or no question, in common.
    """
    base = [member(registry, text) for text in baseline.members]
    competing = [(arm, [member(registry, text) for text in arm.members]) for arm in arms]
    competing = [(arm, runs) for arm, runs in competing if _names(runs) != _names(base)]
    refuse_other_questions([m.run for m in base] + [m.run for _, runs in competing for m in runs])
    pairing = Pairing(registry)
    compared: list[tuple[Row, PairedDifference]] = []
    for arm, runs in competing:
        mine = [
            (_cell(arm, runs, shots, size, pairs) | _against(baseline, base, pairs, d), d)
            for shots, size, pairs, d in differences(pairing, runs, base)
        ]
        if not mine:
            raise RegistryError(
                f"{arm.label} and {baseline.label} answered no question in common at any number of shots.",
                "Nothing to pair.",
            )
        compared += mine
    own = {"baseline": None, "baseline_seeds": len(base), "comparisons": len(compared), **dict.fromkeys(COMPARED)}
    rows = [
        _cell(baseline, base, shots, size, sample) | own
        for shots, sizes in sorted(common_cells(base).items())
        if (pairs := pairing.pairs(base, [], shots, shots)) is not None
        for size, sample in nested(pairs, sizes)
    ]
    return rows + with_corrections(compared)


def primary_grid(registry: Registry, arms: Sequence[Arm], baseline: Arm) -> list[Row]:
    """Every arm on the primary endpoint of the baseline's run (see `primary.Endpoint`), with its difference to the
    baseline: the baseline's own row, then a row per arm in the order given. The comparisons of the arms that are
    `primary` are one family of their own; the rows of the others have no mark.

    Keys: arm and baseline (labels; None in the baseline's own row, with all that follows from a comparison), method,
    primary (True), counts (whether it is of the family), shots (None), over (numbers of shots of the mean), and what
    `primary.difference` and `pairing.with_corrections` give. An arm that shares no number of shots or question with the
    baseline has no row. Raises RegistryError as `grid_rows`.
    """
    base = [member(registry, text) for text in baseline.members]
    competing = [(arm, [member(registry, text) for text in arm.members]) for arm in arms]
    competing = [(arm, runs) for arm, runs in competing if _names(runs) != _names(base)]
    refuse_other_questions([m.run for m in base] + [m.run for _, runs in competing for m in runs])
    pairing, endpoint = Pairing(registry), Endpoint.of(base[0].run, ())
    found = [
        (arm, runs, pair) for arm, runs in competing if (pair := difference(pairing, endpoint, runs, base)) is not None
    ]
    if not found:
        return []
    rows = family([(pair, arm.primary) for arm, _, pair in found])
    compared = [
        {"arm": arm.label, "baseline": baseline.label, "method": runs[0].method, "shots": None, **row, "primary": True,
         "counts": arm.primary}
        for (arm, runs, _), row in zip(found, rows, strict=True)
    ]  # fmt: skip
    size = max(row["n"] for row in compared)
    over: list[int] = next(row["over"] for row in compared if row["n"] == size)
    side = Endpoint(tuple(over)).side(base)
    sample = pairing.aligned([side]) if side else None
    if sample is None:
        return compared
    own = accuracy_interval(sample.sample(size).sides[0], sample.sample(size).images)
    row = dict.fromkeys(compared[0]) | {
        "arm": baseline.label, "method": base[0].method, "primary": True, "counts": False, "over": over, "n": size,
        "questions": sample.sample(size).n, "seeds": len(base), "baseline_seeds": len(base),
        "accuracy": own.mean, "ci_low": own.low, "ci_high": own.high,
    }  # fmt: skip
    return [row, *compared]


COMPARED = (
    "baseline_accuracy", "delta", "delta_low", "delta_high", "p_value", "corrected_low", "corrected_high", "p_holm",
    "mark", "detectable", "wins", "losses", "ties",
)  # fmt: skip


def _names(runs: Sequence[Member]) -> set[tuple[str, str]]:
    return {(m.run["id"], m.method) for m in runs}


def _cell(arm: Arm, runs: Sequence[Member], shots: int, size: int, sample: Pairs) -> Row:
    interval = accuracy_interval(sample.a, sample.images)
    return {
        "arm": arm.label, "method": runs[0].method, "shots": shots, "n": size, "seeds": len(runs),
        "questions": sample.n, "left_out": size - sample.n,
        "accuracy": interval.mean, "ci_low": interval.low, "ci_high": interval.high,
    }  # fmt: skip


def _against(baseline: Arm, base: Sequence[Member], pairs: Pairs, d: PairedDifference) -> Row:
    ours, theirs = pairs.a.mean(axis=0), pairs.b.mean(axis=0)
    gain = ours - theirs
    return {
        "baseline": baseline.label, "baseline_seeds": len(base), "baseline_accuracy": float(theirs.mean()),
        "delta": d.delta, "delta_low": d.low, "delta_high": d.high, "p_value": d.p_value,
        "wins": int((gain > SAME).sum()), "losses": int((gain < -SAME).sum()),
        "ties": int((abs(gain) <= SAME).sum()),
    }  # fmt: skip
