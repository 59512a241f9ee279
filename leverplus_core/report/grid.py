"""Every arm of an experiment against its baseline, cell by cell, as one family of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leverplus_core.errors import RegistryError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.pairing import (
    Member,
    Pairing,
    Pairs,
    Row,
    common_cells,
    member,
    nested,
    refuse_other_questions,
    shot_pairs,
)
from leverplus_core.statistics import (
    PairedDifference,
    accuracy_interval,
    corrected,
    detectable_difference,
    paired_difference,
)

ALPHA = 0.05
"""The chance that a whole grid shows any mark where nothing differs."""


@dataclass(frozen=True)
class Arm:
    """One way of doing the experiment: a label and one or several `RUN:METHOD`, the seeded runs of that way."""

    label: str
    members: tuple[str, ...]


def grid_rows(registry: Registry, arms: Sequence[Arm], baseline: Arm, alpha: float = ALPHA) -> list[Row]:
    """The cells of every arm at every number of shots and nested sample size, with the difference to the baseline.

    The baseline's own cells come first (`baseline` None), then each arm's in the order given, by shots and n. An arm
    that has the baseline's members is left out: a method is not compared with itself. Questions are paired; those
    about one image are one cluster; an arm of several runs has each question's score averaged over them, and their
    spread in its intervals. All comparisons of the grid are one family (see `statistics.corrected`).

    Keys of a row, accuracies and differences in units of accuracy (0.01 is one point):
    - arm, baseline (labels), method, shots, n (the nominal sample size), seeds, baseline_seeds (numbers of runs);
    - questions: how many were compared; left_out: n less that, the questions of the sample that not all answered;
    - accuracy, ci_low, ci_high (95%, not corrected), baseline_accuracy: over the questions compared;
    - delta (accuracy - baseline_accuracy), delta_low, delta_high (95%, not corrected), p_value;
    - corrected_low, corrected_high, p_holm, mark ("better", "worse" or "no difference seen", from the corrected
      interval alone), comparisons (the number in the family);
    - detectable: the smallest true difference that this cell would mark 8 times in 10;
    - wins, losses, ties: questions on which the arm scores higher, lower, the same.
    In the baseline's rows everything from baseline_accuracy on is None, and comparisons the family's number.

    A baseline at 0 shots only (zero_shot) stands against every number of shots of an arm. Raises RegistryError for a
    run or method that is not there, for other datasets, metrics or splits, and where an arm and the baseline have no
    cell, or no question, in common.
    """
    base = [member(registry, text) for text in baseline.members]
    sides = [(arm, [member(registry, text) for text in arm.members]) for arm in arms]
    sides = [(arm, side) for arm, side in sides if _names(side) != _names(base)]
    refuse_other_questions([m.run for m in base] + [m.run for _, side in sides for m in side])
    pairing = Pairing(registry)
    rows = _own_rows(pairing, baseline, base)
    compared: list[tuple[Row, PairedDifference]] = []
    for arm, side in sides:
        mine = _compared(pairing, arm, side, baseline, base)
        if not mine:
            raise RegistryError(
                f"{arm.label} and {baseline.label} answered no question in common at any number of shots.",
                "Nothing to pair.",
            )
        compared += mine
    for row in rows:
        row["comparisons"] = len(compared)
    for (row, found), fixed in zip(compared, corrected([d for _, d in compared], alpha), strict=True):
        row |= {
            "corrected_low": fixed.low,
            "corrected_high": fixed.high,
            "p_holm": fixed.p_holm,
            "mark": fixed.mark,
            "comparisons": fixed.comparisons,
            "detectable": detectable_difference(found, alpha, fixed.comparisons),
        }
        rows.append(row)
    return rows


COMPARED = (
    "baseline_accuracy", "delta", "delta_low", "delta_high", "p_value", "corrected_low", "corrected_high", "p_holm",
    "mark", "detectable", "wins", "losses", "ties",
)  # fmt: skip


def _names(side: Sequence[Member]) -> set[tuple[str, str]]:
    return {(m.run["id"], m.method) for m in side}


def _own_rows(pairing: Pairing, baseline: Arm, base: Sequence[Member]) -> list[Row]:
    rows: list[Row] = []
    for shots, sizes in sorted(common_cells(base).items()):
        pairs = pairing.pairs(base, [], shots, shots)
        if pairs is None:
            continue
        for size, sample in nested(pairs, sorted(sizes)):
            rows.append(
                _cell(baseline, base, shots, size, sample)
                | {"baseline": None, "baseline_seeds": len(base)}
                | dict.fromkeys(COMPARED)
            )
    return rows


def _compared(
    pairing: Pairing, arm: Arm, side: Sequence[Member], baseline: Arm, base: Sequence[Member]
) -> list[tuple[Row, PairedDifference]]:
    found: list[tuple[Row, PairedDifference]] = []
    cells, base_cells = common_cells(side), common_cells(base)
    for shots, base_shots in shot_pairs(cells, base_cells):
        pairs = pairing.pairs(side, base, shots, base_shots)
        if pairs is None:
            continue
        for size, sample in nested(pairs, sorted(cells[shots] | base_cells[base_shots])):
            difference = paired_difference(sample.a, sample.b, sample.images)
            ours, theirs = sample.a.mean(axis=0), sample.b.mean(axis=0)
            apart = ours - theirs
            row = _cell(arm, side, max(shots, base_shots), size, sample) | {
                "baseline": baseline.label,
                "baseline_seeds": len(base),
                "baseline_accuracy": float(theirs.mean()),
                "delta": difference.delta,
                "delta_low": difference.low,
                "delta_high": difference.high,
                "p_value": difference.p_value,
                "wins": int((apart > 1e-9).sum()),
                "losses": int((apart < -1e-9).sum()),
                "ties": int((abs(apart) <= 1e-9).sum()),
            }
            found.append((row, difference))
    return found


def _cell(arm: Arm, side: Sequence[Member], shots: int, size: int, sample: Pairs) -> dict[str, Any]:
    interval = accuracy_interval(sample.a, sample.images)
    return {
        "arm": arm.label,
        "method": side[0].method,
        "shots": shots,
        "n": size,
        "seeds": len(side),
        "questions": sample.n,
        "left_out": size - sample.n,
        "accuracy": interval.mean,
        "ci_low": interval.low,
        "ci_high": interval.high,
    }
