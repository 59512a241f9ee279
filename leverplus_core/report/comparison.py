"""Two methods, or two runs, on the same questions: the paired difference and whether it can be told from none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.records import Prediction
from leverplus_core.registry import Registry
from leverplus_core.report.leaderboard import method_order, percent
from leverplus_core.statistics import PairedDifference, paired_difference

Row = dict[str, Any]


@dataclass(frozen=True)
class _Side:
    """What one argument names: a run, and of it one method or (None) all."""

    run: Row
    method: str | None
    cells: dict[str, dict[int, set[int]]]  # method -> shots -> sizes

    def label(self, other: Row) -> str:
        """The run's name, or its id where the other run has the same name."""
        same_name = self.run["name"] == other["name"] and self.run["id"] != other["id"]
        return str(self.run["id"] if same_name else self.run["name"])


def compare_rows(registry: Registry, a: str, b: str) -> list[Row]:
    """a - b for each number of shots and each nested sample size, over the questions that both answered.

    `a` and `b` are `run` or `run:method`, the run by id, start of an id, name or `latest`.
    - `run:method` against `run:method`: those two; the rows' `a` and `b` are such labels.
    - two runs: every method that both have, named in the key `method`; `a` and `b` are the runs' labels.
    - a run against `run:method`: every method of that run against the one (not against itself).
    A method recorded at 0 shots only (zero_shot) is set against every number of shots of the other side. `n` is the
    number of questions compared. The interval takes questions about one image as one cluster.

    Keys: shots, n, a, b (accuracies in [0, 1]), a_name, b_name, delta, ci_low, ci_high, p_value, verdict. Raises
    RegistryError for an unknown run or method, another dataset, or no question in common.
    """
    left, right = _side(registry, a), _side(registry, b)
    _same_questions(left.run, right.run)
    label_a, label_b = left.label(right.run), right.label(left.run)
    rows: list[Row] = []
    for method_a, method_b in _pairs(left, right):
        both_plain = left.method is None and right.method is None
        names = (
            {"a_name": label_a, "b_name": label_b, "method": method_a}
            if both_plain
            else {"a_name": f"{label_a}:{method_a}", "b_name": f"{label_b}:{method_b}"}
        )
        for shots_a, shots_b in _shot_pairs(left.cells[method_a], right.cells[method_b]):
            answers_a = registry.predictions(left.run["id"], method_a, shots_a)
            answers_b = registry.predictions(right.run["id"], method_b, shots_b)
            sizes = left.cells[method_a][shots_a] | right.cells[method_b][shots_b]
            for found, mean_a, mean_b in _nested(answers_a, answers_b, sorted(sizes)):
                rows.append(
                    {
                        "shots": max(shots_a, shots_b),
                        "n": found.n,
                        **names,
                        "a": mean_a,
                        "b": mean_b,
                        "delta": found.delta,
                        "ci_low": found.low,
                        "ci_high": found.high,
                        "p_value": found.p_value,
                        "verdict": verdict(found.low, found.high),
                    }
                )
    if not rows:
        raise RegistryError(f"{a} and {b} answered no question in common at any number of shots.", "Nothing to pair.")
    return rows


def verdict(low: float, high: float) -> str:
    """In words, from the interval alone: one that holds zero is no difference seen, whatever the mean."""
    if low > 0:
        return "a better"
    return "b better" if high < 0 else "no difference seen"


def _side(registry: Registry, text: str) -> _Side:
    name, colon, method = text.rpartition(":")
    run = registry.resolve(name if colon else text)
    cells: dict[str, dict[int, set[int]]] = {}
    for row in registry.cells([run["id"]]):
        cells.setdefault(row["method"], {}).setdefault(row["shots"], set()).add(row["n"])
    if not cells:
        raise RegistryError(f"run {run['name']} ({run['id']}) has evaluated nothing yet.", "Run it to the end.")
    if colon and method not in cells:
        raise RegistryError(f"no method '{method}' in run {run['name']} ({run['id']}).", did_you_mean(method, cells))
    return _Side(run, method if colon else None, cells)


def _same_questions(a: Row, b: Row) -> None:
    """Refuse runs whose question ids need not mean the same question: a generated dataset numbers them alike."""
    where = f"{a['name']} ({a['id']}) and {b['name']} ({b['id']})"
    hint = "A paired comparison needs the same questions."
    if a["dataset"] != b["dataset"]:
        raise RegistryError(f"{where} ran on other datasets: {a['dataset']} and {b['dataset']}.", hint)
    ours, theirs = a["recipe"].get("dataset"), b["recipe"].get("dataset")
    if ours != theirs:
        raise RegistryError(f"{where} ran on other settings of {a['dataset']}: {ours} and {theirs}.", hint)


def _pairs(a: _Side, b: _Side) -> list[tuple[str, str]]:
    if a.method and b.method:
        return [(a.method, b.method)]
    if a.method:
        pairs = [(a.method, other) for other in sorted(b.cells, key=method_order)]
    elif b.method:
        pairs = [(other, b.method) for other in sorted(a.cells, key=method_order)]
    else:
        return [(m, m) for m in sorted(a.cells.keys() & b.cells.keys(), key=method_order)]
    return [pair for pair in pairs if a.run["id"] != b.run["id"] or pair[0] != pair[1]]


def _shot_pairs(a: dict[int, set[int]], b: dict[int, set[int]]) -> list[tuple[int, int]]:
    if a.keys() == {0} or b.keys() == {0}:
        return [(i, j) for i in sorted(a) for j in sorted(b)]
    return [(shots, shots) for shots in sorted(a.keys() & b.keys())]


def _nested(
    a: Sequence[tuple[int, Prediction]], b: Sequence[tuple[int, Prediction]], sizes: Sequence[int]
) -> list[tuple[PairedDifference, float, float]]:
    """(difference, mean of a, mean of b) for each sample size, over the questions among the first `size` of both."""
    placed = {p.question_id: (position, p) for position, p in b}
    common = [(max(i, placed[p.question_id][0]), p, placed[p.question_id][1]) for i, p in a if p.question_id in placed]
    found: list[tuple[PairedDifference, float, float]] = []
    for size in sizes:
        pairs = [(p, q) for last, p, q in common if last < size]
        # Samples are nested: as many common questions as in a smaller sample are the same questions.
        if not pairs or (found and found[-1][0].n == len(pairs)):
            continue
        first, second = [p.accuracy for p, _ in pairs], [q.accuracy for _, q in pairs]
        images = [p.image_id for p, _ in pairs]
        clusters = images if len(set(images)) < len(images) else None
        n = len(pairs)
        found.append((paired_difference(first, second, clusters), sum(first) / n, sum(second) / n))
    return found


def compare_table(rows: Sequence[Row]) -> RenderableType:
    """One table for each pair of labels, in percent and percentage points; reads well at 80 columns."""
    if not rows:
        return Text("nothing to compare")
    parts: list[RenderableType] = []
    for (a, b), group in groupby(rows, key=lambda row: (row["a_name"], row["b_name"])):
        parts += [Text(f"a = {a}\nb = {b}", style="bold"), _table(list(group)), Text("")]
    parts.append(Text("accuracy in %, a - b in points with its paired 95% interval on the same questions", style="dim"))
    return Group(*parts)


def _table(rows: Sequence[Row]) -> Table:
    by_method = "method" in rows[0]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), show_edge=False, pad_edge=False)
    if by_method:
        table.add_column("method", overflow="fold")
    for name in ("shots", "n", "a", "b", "a - b", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in rows:
        difference = f"{100 * row['delta']:+.1f} [{100 * row['ci_low']:+.1f}, {100 * row['ci_high']:+.1f}]"
        p = f"{row['p_value']:.3f}" if row["p_value"] >= 0.001 else "<0.001"
        counts, means = [str(row["shots"]), str(row["n"])], [percent(row["a"]), percent(row["b"])]
        cells = [*counts, *means, difference, p, row["verdict"]]
        table.add_row(*(Text(c) for c in ([row["method"], *cells] if by_method else cells)))
    return table
