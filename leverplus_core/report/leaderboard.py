"""The leaderboard: accuracy and interval of each method at each number of shots, of runs and published tables.

Rows are data, with accuracies in [0, 1] and differences in [-1, 1]; the views show percent and points.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.registry.registry import Registry, Scores
from leverplus_core.registry.scores import largest_samples
from leverplus_core.report.methods import Row, merged_order, ordered_methods
from leverplus_core.report.tables import (
    Block,
    Grid,
    Remark,
    Title,
    View,
    bracket,
    csv_text,
    interval,
    percent,
    points,
    shots_text,
    two_lines,
)

FILTERS = ("dataset", "model", "method", "shots", "n", "seed", "sweep", "source")
GROUPS = ("name", *FILTERS)
SORTS = ("accuracy", "delta", *GROUPS)
"""Ascending; a leading `-` is descending: `-accuracy` is best first."""


def leaderboard_rows(
    registry: Registry,
    run: str | Sequence[str] | None = None,
    baseline: str | None = None,
    sort: Sequence[str] = (),
    group: Sequence[str] = (),
    **filters: Any,
) -> list[Row]:
    """The recorded cells that match, with the columns of the view `leaderboard`, and `delta` where there is a baseline.

    `run` is an id, the start of one, a name or `latest`, or several of these. `filters` name FILTERS, each a value or
    several. By default the run started last comes first, then by method, shots and n; with `group` (of GROUPS) rows
    that agree in these are together, and best first within, unless `sort` (of SORTS) says otherwise.
    `baseline` is `RUN:METHOD`, or a METHOD within each run: `delta` is the difference to its cell of the same shots
    and n (one at 0 shots only is compared with all), None where there is none on the same questions. `delta_low` and
    `delta_high` are its paired 95% interval, which is not corrected for the number of rows (`compare` is); None in the
    baseline's own cells, and where a side is a published table, which has no predictions to pair.

    Raises RegistryError for an unknown run, method or baseline, for an unknown filter or key, and for a value that was
    never evaluated.
    """
    runs = _runs(registry, run)
    rows = every = registry.cells([r["id"] for r in runs])
    evaluated: dict[str, list[str]] = {}
    for row in rows:
        evaluated.setdefault(row["run"], []).append(row["method"])
    orders = {r["id"]: ordered_methods(r, evaluated.get(r["id"], ())) for r in runs}
    for column, value in filters.items():
        rows = _keep(rows, column, value, run)
    if baseline is not None and every:
        _add_deltas(registry, rows, baseline, every)
    place = {run_id: i for i, run_id in enumerate(orders)}
    rows.sort(key=lambda r: (place[r["run"]], orders[r["run"]].index(r["method"]), r["shots"], r["n"]))
    methods = merged_order(orders.values())
    for key in reversed(list(sort) or (["-accuracy"] if group else [])):
        rows = sorted_rows(rows, key, methods, baseline is not None)
    for key in reversed(group):
        if key not in GROUPS:
            raise RegistryError(f"the leaderboard cannot be grouped by '{key}'.", did_you_mean(key, GROUPS))
        rows = sorted_rows(rows, key, methods, True)
    return rows


def _runs(registry: Registry, run: str | Sequence[str] | None) -> list[Row]:
    found = [registry.resolve(text) for text in ([run] if isinstance(run, str) else run or ())]
    return list({r["id"]: r for r in found}.values()) or registry.runs()


def _keep(rows: list[Row], column: str, value: Any, run: str | Sequence[str] | None) -> list[Row]:
    if column not in FILTERS:
        raise RegistryError(f"the leaderboard has no filter '{column}'.", did_you_mean(column, FILTERS))
    wanted = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if not wanted or not rows:
        return rows
    there = {row[column] for row in rows} - {None}
    if missing := [one for one in wanted if one not in there]:
        known = sorted(there)
        hint = f"Known: {', '.join(map(str, known)) or 'none'}."
        hint = did_you_mean(missing[0], known) if isinstance(missing[0], str) else hint
        of = f" in run {run if isinstance(run, str) else ', '.join(run)}" if run else ""
        raise RegistryError(f"no cell with {column} {missing[0]}{of}.", hint)
    return [row for row in rows if row[column] in wanted]


def sorted_rows(rows: Sequence[Row], key: str, methods: Sequence[str], has_delta: bool) -> list[Row]:
    """The rows by a `key` of SORTS, methods in the order of `methods`, those without a value last in either direction;
    rows of one value stay in their order. Raises RegistryError for another key, and for `delta` where there is none.
    """
    column, reverse = key.removeprefix("-"), key.startswith("-")
    if column not in SORTS:
        raise RegistryError(f"the leaderboard cannot be sorted by '{column}'.", did_you_mean(column, SORTS))
    if column == "delta" and not has_delta:
        raise RegistryError("there is no delta to sort by.", "Name a baseline: --baseline METHOD or RUN:METHOD.")
    some = [row for row in rows if row[column] is not None]
    some.sort(
        key=lambda row: methods.index(row["method"]) if column == "method" else row[column],
        reverse=reverse,
    )
    return some + [row for row in rows if row[column] is None]


# Differences to a baseline.


def _add_deltas(registry: Registry, rows: Sequence[Row], baseline: str, every: Sequence[Row]) -> None:
    """Add differences to `rows`; a baseline of each run itself is looked for among all of its cells, `every`."""
    name, colon, method = baseline.rpartition(":")
    run = registry.resolve(name) if colon else None
    there = registry.cells([run["id"]]) if run else every
    if method not in (known := {row["method"] for row in there}):
        where = f"in run {run['name']} ({run['id']})" if run else "in any run"
        raise RegistryError(f"no method '{method}' {where}.", did_you_mean(method, known))
    base = [row for row in there if row["method"] == method]
    with_shots = {row["run"] for row in base if row["shots"]}
    at = {(row["run"], row["shots"] if row["run"] in with_shots else None, row["n"]): row for row in base}
    intervals = _Intervals(registry)
    for row in rows:
        of = run["id"] if run else row["run"]
        against = at.get((of, row["shots"], row["n"]), at.get((of, None, row["n"])))
        row["delta"] = _difference(row, against)
        row["delta_low"], row["delta_high"] = intervals.of(row, against)
    if rows and all(row["delta"] is None for row in rows):
        raise RegistryError(
            f"no cell has the questions, shots and n of a cell of {baseline}.", "Choose another baseline."
        )


def _difference(row: Row, base: Mapping[str, Any] | None) -> float | None:
    """None where the two are known to have answered different questions; exact for printed decimals."""
    if base is None or any(row[k] and base[k] and row[k] != base[k] for k in ("dataset", "sample")):
        return None
    if row["accuracy_text"] and base["accuracy_text"]:
        return float((Decimal(row["accuracy_text"]) - Decimal(base["accuracy_text"])) / 100)
    return float(row["accuracy"] - base["accuracy"])


class _Intervals:
    """Paired 95% intervals of differences of cells; the scores of a cell are read once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._read: dict[tuple[str, str, int], Scores] = {}

    def of(self, row: Row, base: Row | None) -> tuple[float | None, float | None]:
        """(None, None) for a cell and itself, and where the same questions cannot be paired."""
        from leverplus_core.statistics import paired_difference

        if base is None or base is row or row["delta"] is None or not row["sample"] or row["sample"] != base["sample"]:
            return None, None
        key, other = ((str(cell["run"]), str(cell["method"]), int(cell["shots"])) for cell in (row, base))
        if key == other:
            return None, None
        ours, theirs = self._scores(key), self._scores(other)
        n = row["n"]
        if min(len(ours.accuracy), len(theirs.accuracy)) < n:
            return None, None
        found = paired_difference(ours.accuracy[:n], theirs.accuracy[:n], ours.image_id[:n])
        return found.low, found.high

    def _scores(self, key: tuple[str, str, int]) -> Scores:
        if key not in self._read:
            self._read[key] = self._registry.scores(*key)
        return self._read[key]


# Views.

DROPPED = ("model", "sweep", "95% interval", "interval of delta", "dataset", "seed", "run", "arm", "name")
"""Columns of a list that a narrow terminal leaves out, the first of these first."""
UNCORRECTED = (
    "differences in points with paired 95% intervals, not corrected for their number: `leverplus compare` does"
)
OF_RUN = ("dataset", "model", "sweep", "arm", "seed")
OF_CELL = ("method", "shots", "n")
WORDS = ("name", "dataset", "model", "method", "sweep", "arm", "source")
FIELDS = (
    "run", "name", "source", "dataset", "model", "sweep", "arm", "seed", "method", "shots", "n",
    "accuracy", "ci_low", "ci_high", "accuracy_text", "delta", "delta_low", "delta_high", "status", "note", "sample",
)  # fmt: skip


def leaderboard_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV, accuracies in [0, 1]; the settings of an arm are JSON."""
    fields = [f for f in FIELDS if not f.startswith("delta") or any("delta" in row for row in rows)]
    arms = (json.dumps(row["arm"], ensure_ascii=False) if row["arm"] else None for row in rows)
    return csv_text(({**row, "arm": arm} for row, arm in zip(rows, arms, strict=True)), fields)


def shown_rows(
    rows: Sequence[Row], every_size: bool = False, group: Sequence[str] = (), sort: Sequence[str] = ()
) -> list[Row]:
    """The rows of each run's largest sample (of an imported run, of each log's); all with `every_size`, or where n is
    grouped or sorted by."""
    if every_size or "n" in {key.removeprefix("-") for key in (*group, *sort)}:
        return list(rows)
    return largest_samples(rows)


def leaderboard_table(
    rows: Sequence[Row], every_size: bool = False, group: Sequence[str] = (), sort: Sequence[str] = ()
) -> View:
    """A grid per run, methods as rows and shots as columns; with `group` or `sort` a list, a row per cell.

    Either shows what `shown_rows` keeps.
    """
    if not rows:
        return View(["nothing evaluated yet"])
    rows = shown_rows(rows, every_size, group, sort)
    if group or sort:
        return _list(rows, group, sort)
    place = {run: i for i, run in enumerate(dict.fromkeys(row["run"] for row in rows))}
    grids = groupby(sorted(rows, key=lambda row: (place[row["run"]], row["n"])), key=itemgetter("run", "n"))
    blocks = [block for _, cells in grids for block in (*_grid(list(cells)), "")]
    return View(blocks[:-1])


def _grid(cells: Sequence[Row]) -> list[Block]:
    first, texts = cells[0], {(row["method"], row["shots"]): _cell(row) for row in cells}
    methods = list(dict.fromkeys(row["method"] for row in cells))
    about = ", ".join(filter(None, (first["dataset"], first["model"])))
    source = "" if first["source"] == "run" else f"{first['source']}, "
    blocks: list[Block] = [Title(f"{first['name']} ({source}{first['run']}){': ' if about else ''}{about}")]
    shots = sorted({row["shots"] for row in cells})
    lines = [[two_lines(method), *(texts.get((method, s), "-") for s in shots)] for method in methods]
    blocks.append(Grid(["method", *map(shots_text, shots)], lines))
    about = UNCORRECTED if "delta" in first else "95% interval in brackets"
    blocks.append(Remark(f"accuracy in %, {about}; n = {first['n']}"))
    return [*blocks, *_remarks(cells)]


def _cell(row: Row) -> str:
    """Accuracy above its interval, or beside the difference above that of the difference: five fit into 80 columns."""
    if "delta" in row and row["delta"] is None:
        return f"{_accuracy(row)}\n"
    if "delta" not in row:
        return f"{_accuracy(row)}\n{bracket(row['ci_low'], row['ci_high'])}"
    ends = "" if row["delta_low"] is None else interval(row["delta_low"], row["delta_high"])
    return f"{_accuracy(row)} {_delta(row)}\n{ends}"


def _list(rows: Sequence[Row], group: Sequence[str], sort: Sequence[str]) -> View:
    """A table for each value of `group`, with the columns that distinguish cells and those that they are sorted by."""
    columns = _columns(rows, group, sort)
    align = "".join("w" if column in WORDS else "n" for column in columns)
    drop = [column for column in DROPPED if column not in {key.removeprefix("-") for key in sort}]
    blocks: list[Block] = []
    for title, of_group in groupby(rows, key=lambda row: ", ".join(f"{k} {_field(row, k) or '-'}" for k in group)):
        blocks += [Title(title)] if title else []
        blocks += [
            Grid(columns, [[_field(row, column) for column in columns] for row in of_group], align, drop=drop),
            "",
        ]
    same = [f"{f} {rows[0][f]}" for f in OF_CELL if f not in group and f not in columns]
    remarks = [
        "; ".join(filter(None, ("accuracy in %", ", ".join(same)))),
        *([UNCORRECTED] if "delta" in columns else []),
    ]
    return View([*blocks, *map(Remark, remarks), *_about(rows, columns), *_remarks(rows)])


def _columns(rows: Sequence[Row], group: Sequence[str], sort: Sequence[str]) -> list[str]:
    """What distinguishes the rows of one table, in as few columns as suffice, and what they are sorted by."""
    runs = list({row["run"]: row for row in rows}.values())
    wanted = {key.removeprefix("-") for key in sort}
    shown = ["name"] if len({_name(run) for run in runs}) > 1 else []
    for field in (*OF_RUN, "run"):
        coarse = {tuple(_field(run, f) for f in (*group, *shown)) for run in runs}
        finer = {tuple(_field(run, f) for f in (*group, *shown, field)) for run in runs}
        if field in wanted or len(coarse) < len(finer):
            shown.append(field)
    shown += [f for f in OF_CELL if f in wanted or len({_field(row, f) for row in rows}) > 1]
    delta = ["delta", "interval of delta"] if "delta" in rows[0] else []
    return [*(f for f in shown if f not in group), "accuracy", "95% interval", *delta]


def _about(rows: Sequence[Row], columns: Sequence[str]) -> list[Remark]:
    """What the runs of each name have in common; where they differ a column says it."""
    shared: dict[str, list[str]] = {}
    for name in dict.fromkeys(map(_name, rows)):
        known = {f: {row[f] for row in rows if _name(row) == name} for f in OF_RUN if f != "arm" and f not in columns}
        same = [f"{f} {values.pop()}" for f, values in known.items() if len(values) == 1 and values - {None, ""}]
        shared.setdefault(", ".join(same), []).append(name)
    several = len(shared) == 1 and any(len(names) > 1 for names in shared.values())
    return [Remark(f"{'all' if several else ', '.join(names)}: {same}") for same, names in shared.items() if same]


def _remarks(rows: Sequence[Row]) -> list[Remark]:
    """What a reader must know about the runs, each once."""
    unfinished = dict.fromkeys((row["run"], row["name"], row["status"]) for row in rows if row["status"] != "done")
    one = len({row["run"] for row in rows}) == 1
    lines = [
        f"{'this run' if one else f'run {name} ({id})'} is not complete: {state}" for id, name, state in unfinished
    ]
    return [Remark(line) for line in (*dict.fromkeys(row["note"] for row in rows if row["note"]), *lines)]


def _field(row: Row, column: str) -> str:
    match column:
        case "accuracy":
            return _accuracy(row)
        case "95% interval":
            return bracket(row["ci_low"], row["ci_high"])
        case "delta":
            return "-" if row["delta"] is None else _delta(row)
        case "interval of delta":
            return "-" if row["delta_low"] is None else interval(row["delta_low"], row["delta_high"])
        case "name":
            return _name(row)
        case "arm":
            return " ".join(f"{key}={value}" for key, value in (row["arm"] or {}).items())
    return "" if row[column] is None else str(row[column])


def _name(row: Row) -> str:
    return str(row["name"]) if row["source"] == "run" else f"{row['name']} ({row['source']})"


def _accuracy(row: Row) -> str:
    """As printed, for a published table."""
    return row["accuracy_text"] or percent(row["accuracy"])


def _delta(row: Row) -> str:
    """To as many decimals as the accuracy is shown with."""
    return points(row["delta"], max(1, len(_accuracy(row).partition(".")[2])))
