"""The primary endpoint: one comparison, fixed in the recipe before the run, that the conclusion rests on.

Each question's score is its mean over some numbers of shots; two methods are compared on the largest sample, paired by
question. The baseline is the one that did best on held-out train questions (stage `choose_baseline`), so the comparison
is with the hardest of them without a look at the evaluation questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from leverplus_core.registry.registry import Registry
from leverplus_core.report.methods import FLOOR, NEIGHBORS, Row, imported_methods, trained_methods
from leverplus_core.report.pairing import Cells, Member, Pairing, Side, common_cells, with_corrections
from leverplus_core.statistics import PairedDifference, accuracy_interval, paired_difference

CHOOSES = "choose_baseline"
"""The stage that names the best baseline."""


@dataclass(frozen=True)
class Endpoint:
    """`evaluation.primary` of a run: shots and n are None for all evaluated and for the largest sample; `method` is the
    one that it is about, None where nothing was trained."""

    shots: tuple[int, ...] | None = None
    n: int | None = None
    method: str | None = None
    against: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: Mapping[str, Any], methods: Sequence[str]) -> Self:
        """That of a run that evaluated `methods`; without a named method it is about the one trained last."""
        named = (run["recipe"].get("evaluation") or {}).get("primary") or {}
        trained = trained_methods(run, methods)
        method = named.get("method") or (trained[-1] if trained else None)
        shots = named.get("shots")
        return cls(tuple(shots) if shots else None, named.get("n"), method, tuple(named.get("against") or ()))

    def side(self, members: Sequence[Member], others: Sequence[Member] = ()) -> Side | None:
        """The members at the numbers of shots of the endpoint: a method that was asked at 0 shots only stands for every
        number. Without shots of its own the endpoint has those at which members and `others` all were evaluated. None
        where members were not evaluated at all of them."""
        cells = common_cells(members)
        if cells.keys() == {0}:
            return members, (0,)
        theirs = common_cells(others) if others else {0: set[int]()}
        common = set(cells) if theirs.keys() == {0} else set(cells) & set(theirs)
        shots = self.shots or tuple(sorted(common - {0}))
        return (members, shots) if shots and set(shots) <= set(cells) else None

    def size(self, cells: Sequence[Cells]) -> int:
        """The sample size: its own, or the largest of these cells."""
        return self.n or max(n for one in cells for sizes in one.values() for n in sizes)


@dataclass(frozen=True)
class Best:
    """The baseline to beat, `name`. It was chosen on `questions` train questions that `source` names ("held_out", or
    "validation_questions": those that chose the epoch), among `accuracies` (name -> mean in [0, 1], over the runs).
    Where no run chose one, source is None, and text_knn or random stands in, or the
    first log of an imported run. `others` are those that further runs of
    the arm chose."""

    name: str
    source: str | None = None
    questions: int | None = None
    accuracies: Mapping[str, float] | None = None
    others: tuple[str, ...] = ()


def best_baseline(registry: Registry, run_ids: Sequence[str], methods: Sequence[str]) -> Best | None:
    """The best baseline among `methods` of the runs of one arm: the one that most of them chose, of several the first.
    Where they chose none, text_knn or random stands in, for an imported run its first method; None without these."""
    found = []
    for run_id in run_ids:
        rows = (row["metadata"] or {} for row in registry.stages(run_id) if row["name"] == CHOOSES)
        found += [metadata for metadata in rows if metadata.get("best") in methods]
    if not found:
        run = registry.resolve(run_ids[0])
        wanted = imported_methods(run)[:1] if run["source"] == "imported" else [NEIGHBORS, FLOOR]
        stand_in = next((name for name in wanted if name in methods), None)
        return None if stand_in is None else Best(stand_in)
    names = Counter(metadata["best"] for metadata in found)
    name = names.most_common(1)[0][0]
    chosen = [metadata for metadata in found if metadata["best"] == name]
    means = {
        key: sum(metadata["accuracies"][key] for metadata in found) / len(found)
        for key in found[0].get("accuracies") or {}
        if all(key in metadata["accuracies"] for metadata in found)
    }
    others = tuple(sorted(set(names) - {name}))
    return Best(name, chosen[0].get("source", "held_out"), chosen[0].get("questions"), means, others)


Found = tuple[Row, PairedDifference]


def difference(pairing: Pairing, endpoint: Endpoint, a: Sequence[Member], b: Sequence[Member]) -> Found | None:
    """a - b on the primary endpoint; None where they were not both evaluated at its shots, or on no common question.

    Keys: over (numbers of shots), n (the nominal sample size), questions (compared), left_out, seeds, baseline_seeds,
    accuracy, ci_low, ci_high, baseline_accuracy, delta, delta_low, delta_high (95%, not corrected), p_value.
    """
    ours, theirs = endpoint.side(a, b), endpoint.side(b, a)
    if ours is None or theirs is None or (pairs := pairing.means(ours, theirs)) is None:
        return None
    size = endpoint.size([common_cells(a), common_cells(b)])
    sample = pairs.sample(size)
    if not sample.n:
        return None
    found = paired_difference(sample.a, sample.b, sample.images)
    own = accuracy_interval(sample.a, sample.images)
    over = list(ours[1] if tuple(ours[1]) != (0,) else theirs[1])
    row = {
        "over": over, "n": size, "questions": sample.n, "left_out": size - sample.n,
        "seeds": len(a), "baseline_seeds": len(b),
        "accuracy": own.mean, "ci_low": own.low, "ci_high": own.high, "baseline_accuracy": float(sample.b.mean()),
        "delta": found.delta, "delta_low": found.low, "delta_high": found.high, "p_value": found.p_value,
    }  # fmt: skip
    return row, found


UNMARKED = dict.fromkeys(("corrected_low", "corrected_high", "p_holm", "mark", "comparisons", "detectable"))
"""What a comparison outside the primary family lacks."""


def family(found: Sequence[tuple[Found, bool]]) -> list[Row]:
    """The rows, those of the primary family (True) corrected for each other (`with_corrections`), and with `primary`;
    in all others what a correction gives is None: they are exploratory and have no mark."""
    marked = iter(with_corrections([one for one, primary in found if primary]))
    return [{**(next(marked) if primary else one[0] | UNMARKED), "primary": primary} for one, primary in found]
