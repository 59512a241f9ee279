"""Which methods are compared, and on which questions: runs and methods by name, scores aligned by question."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leverplus_core.errors import RegistryError
from leverplus_core.recipes.settings import ABLATED, ADAPTIVE
from leverplus_core.registry.registry import Registry, Scores
from leverplus_core.report.methods import Row, pick_method, trained_methods
from leverplus_core.statistics import PairedDifference, corrected, detectable_difference, paired_difference

ALPHA = 0.05
"""The chance that a family of comparisons shows any mark where nothing differs."""
SAME = 1e-9
"""Scores and means closer than this are equal: they are sums of tenths, added in different orders."""
Cells = dict[int, set[int]]
"""shots -> sizes of the nested samples"""


@dataclass(frozen=True)
class Member:
    """One method of one run, and where it was evaluated."""

    run: Mapping[str, Any]
    method: str
    cells: Cells


Side = tuple[Sequence[Member], Sequence[int]]
"""The seeded runs of one method, and the numbers of shots over which a question's score is a mean."""


@dataclass(frozen=True)
class Aligned:
    """The scores of several sides on the same N questions, in nested order.

    sides: for each (S, N) accuracies of its S runs, or (1, N) of a baseline that all runs share; images (N,) numbers
    the images; `last` (N,) is the position of a question in the run that asks it last, so that the sample of size n has
    last < n.
    """

    sides: tuple[NDArray[np.float64], ...]
    images: NDArray[np.intp]
    last: NDArray[np.int64]

    def sample(self, size: int) -> Aligned:
        """The questions of the nested sample of `size` that all runs answered."""
        n = int(np.searchsorted(self.last, size))
        return Aligned(tuple(side[:, :n] for side in self.sides), self.images[:n], self.last[:n])

    @property
    def n(self) -> int:
        """The number of questions."""
        return len(self.last)


@dataclass(frozen=True)
class Pairs:
    """Two sides of `Aligned`: a (S, N) and b (T, N) of S runs of one method and T of another."""

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    images: NDArray[np.intp]
    last: NDArray[np.int64]

    def sample(self, size: int) -> Pairs:
        """The questions of the nested sample of `size` that all runs answered."""
        n = int(np.searchsorted(self.last, size))
        return Pairs(self.a[:, :n], self.b[:, :n], self.images[:n], self.last[:n])

    @property
    def n(self) -> int:
        """The number of questions."""
        return len(self.last)


def split_name(text: str) -> tuple[str, str | None]:
    """`RUN:METHOD` as (run, method), `RUN` as (run, None)."""
    name, colon, method = text.rpartition(":")
    return (name, method) if colon else (text, None)


def unevaluated(registry: Registry, run: Row) -> RegistryError:
    """That a run has no results: one that failed is `latest`, too, so the last one that has some is named."""
    last = next((row for row in registry.runs() if row["source"] == "run" and registry.cells([row["id"]])), None)
    other = f" The last run with results is {last['name']} ({last['id']})." if last else ""
    return RegistryError(
        f"run {run['name']} ({run['id']}) has evaluated nothing yet; its status is '{run['status']}'.",
        f"Run it to the end.{other}",
    )


def members(registry: Registry, run: str) -> dict[str, Member]:
    """The evaluated methods of a run. Raises RegistryError for an unknown run, or one without results."""
    found = registry.resolve(run)
    cells: dict[str, Cells] = {}
    for row in registry.cells([found["id"]]):
        cells.setdefault(row["method"], {}).setdefault(row["shots"], set()).add(row["n"])
    if not cells:
        raise unevaluated(registry, found)
    return {method: Member(found, method, where) for method, where in cells.items()}


def member(registry: Registry, text: str) -> Member:
    """The method that `RUN:METHOD` names. Raises RegistryError for an unknown run or method."""
    run, method = split_name(text)
    if method is None:
        raise RegistryError(f"'{text}' names a run, not a method of it.", "Write RUN:METHOD.")
    there = members(registry, run)
    return there[pick_method(next(iter(there.values())).run, there, method)]


def refuse_other_questions(runs: Sequence[Mapping[str, Any]]) -> None:
    """Raise RegistryError where question ids may not mean the same questions, or scores are not comparable.

    A generated dataset numbers its questions alike whatever its settings, so its name is not enough.
    """
    hint = "A paired comparison needs the same questions and the same metric."
    first = runs[0]
    for other in runs[1:]:
        where = f"{first['name']} ({first['id']}) and {other['name']} ({other['id']})"
        for what, ours, theirs in (
            ("datasets", first["dataset"], other["dataset"]),
            ("metrics", *(run["recipe"].get("task", "vqa") for run in (first, other))),
            ("splits", *((run["recipe"].get("evaluation") or {}).get("split", "validation") for run in (first, other))),
            (f"settings of {first['dataset']}", *(run["recipe"].get("dataset") for run in (first, other))),
            (f"versions of {first['dataset']}", *_contents(first, other)),
        ):
            if ours != theirs:
                raise RegistryError(f"{where} ran on different {what}: {ours} and {theirs}.", hint)


def _contents(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, str]:
    """The datasets' fingerprints where both are known; an unknown one is the run's id."""
    ours, theirs = (run.get("dataset_fingerprint") or run["id"] for run in (a, b))
    return (ours, theirs) if ours != a["id"] and theirs != b["id"] else ("", "")


def shot_pairs(a: Cells, b: Cells) -> list[tuple[int, int]]:
    """Which numbers of shots are compared: equal ones, and a method at 0 shots only with every one."""
    if a.keys() == {0} or b.keys() == {0}:
        return [(i, j) for i in sorted(a) for j in sorted(b)]
    return [(shots, shots) for shots in sorted(a.keys() & b.keys())]


def common_cells(members: Sequence[Member]) -> Cells:
    """Where all members were evaluated."""
    shots = set.intersection(*(set(m.cells) for m in members))
    return {s: set.intersection(*(m.cells[s] for m in members)) for s in shots}


class Pairing:
    """Pairs scores by question. Reads the scores of each method once, however often it is compared."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._read: dict[tuple[str, str, int], Scores] = {}
        self._images: dict[str | None, NDArray[np.intp]] = {}

    def pairs(self, a: Sequence[Member], b: Sequence[Member], shots_a: int, shots_b: int) -> Pairs | None:
        """The questions that all of `a` and all of `b` answered; None where there are none."""
        return self.means((a, [shots_a]), (b, [shots_b]))

    def means(self, a: Side, b: Side) -> Pairs | None:
        """As `pairs`, the score of a question being its mean over the numbers of shots of a side: on the questions
        that all members answered at all of them."""
        found = self.aligned([a, b])
        return None if found is None else Pairs(found.sides[0], found.sides[1], found.images, found.last)

    def aligned(self, sides: Sequence[Side]) -> Aligned | None:
        """The scores of any number of sides on the questions that all answered; None where there are none."""
        read = [self._scores(m, shots) for members, every in sides for m in members for shots in every]
        if not read or not all(len(scores.position) for scores in read):
            return None
        first = read[0]
        if all(other.sample == first.sample for other in read):
            values, last = np.stack([scores.accuracy for scores in read]), first.position
            images = self._image_numbers(first)
        else:
            ids = set.intersection(*(set(scores.question_id.tolist()) for scores in read))
            if not ids:
                return None
            wanted = np.array(sorted(ids))
            rows = [_rows(scores, wanted) for scores in read]
            last = np.max([scores.position[row] for scores, row in zip(read, rows, strict=True)], axis=0)
            order = np.argsort(last, kind="stable")
            values = np.stack([scores.accuracy[row[order]] for scores, row in zip(read, rows, strict=True)])
            images, last = self._image_numbers(first)[rows[0][order]], last[order]
        ends = np.cumsum([len(members) * len(every) for members, every in sides])[:-1]
        split = np.split(values, ends)
        means = [
            _distinct(members, part.reshape(len(members), len(every), -1).mean(axis=1)) if members else part
            for (members, every), part in zip(sides, split, strict=True)
        ]
        return Aligned(tuple(means), images, last)

    def _scores(self, member: Member, shots: int) -> Scores:
        key = (member.run["id"], member.method, shots)
        if key not in self._read:
            self._read[key] = self._registry.scores(*key)
        return self._read[key]

    def _image_numbers(self, scores: Scores) -> NDArray[np.intp]:
        if scores.sample not in self._images:
            self._images[scores.sample] = np.unique(scores.image_id, return_inverse=True)[1].astype(np.intp)
        return self._images[scores.sample]


def _rows(scores: Scores, wanted: NDArray[np.str_]) -> NDArray[np.intp]:
    order = np.argsort(scores.question_id, kind="stable")
    return order[np.searchsorted(scores.question_id, wanted, sorter=order)]


def _distinct(members: Sequence[Member], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores (S, N) of the runs of one method, or those of one run where nothing was trained and all answered
    alike: a baseline does not depend on the seed, so its runs say nothing about a spread over seeds."""
    learned = any(ABLATED in m.method or m.method == ADAPTIVE or trained_methods(m.run, [m.method]) for m in members)
    return scores if learned or not np.array_equal(scores, np.broadcast_to(scores[:1], scores.shape)) else scores[:1]


def nested(pairs: Pairs, sizes: Iterable[int]) -> Iterator[tuple[int, Pairs]]:
    """(size, its questions) for each nested sample that adds questions to the one before it."""
    before = 0
    for size in sorted(sizes):
        sample = pairs.sample(size)
        if sample.n > before:
            before = sample.n
            yield size, sample


def cells_by(cells: Sequence[Row]) -> Iterator[tuple[Row, Sequence[Row]]]:
    """The cells that a mean is over: all, then those of each number of shots, then those of each sample size; with the
    `shots` and `n` that they have in common, None for what the mean is over."""
    yield {"shots": None, "n": None}, cells
    for key in ("shots", "n"):
        for value in sorted({row[key] for row in cells}):
            yield {"shots": None, "n": None, key: value}, [row for row in cells if row[key] == value]


def differences(
    pairing: Pairing, a: Sequence[Member], b: Sequence[Member]
) -> Iterator[tuple[int, int, Pairs, PairedDifference]]:
    """(shots, size, pairs, a - b) at each number of shots and nested sample size, questions about one image being one
    cluster; nothing where they answered no question in common."""
    cells, others = common_cells(a), common_cells(b)
    for shots_a, shots_b in shot_pairs(cells, others):
        pairs = pairing.pairs(a, b, shots_a, shots_b)
        for size, sample in nested(pairs, cells[shots_a] | others[shots_b]) if pairs else ():
            yield max(shots_a, shots_b), size, sample, paired_difference(sample.a, sample.b, sample.images)


def with_corrections(found: Sequence[tuple[Row, PairedDifference]]) -> list[Row]:
    """The rows of one family of comparisons (see `statistics.corrected`) with their corrected intervals.

    Adds corrected_low, corrected_high, p_holm, mark ("better", "worse" or "no difference seen", from the corrected
    interval alone), comparisons (the size of the family) and detectable, the smallest true difference that the cell
    would mark 8 times in 10.
    """
    fixed = corrected([difference for _, difference in found], ALPHA)
    return [
        row
        | {"corrected_low": c.low, "corrected_high": c.high, "p_holm": c.p_holm, "mark": c.mark}
        | {"comparisons": c.comparisons, "detectable": detectable_difference(difference, ALPHA, c.comparisons)}
        for (row, difference), c in zip(found, fixed, strict=True)
    ]
