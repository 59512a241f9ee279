"""How the leaderboard is drawn: a grid a run, or one list; for a terminal, for Markdown, for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leverplus_core.report.leaderboard import Row, method_order, percent

COLUMNS_AT_80 = 5
NOTHING = "nothing evaluated yet"
KEY = "accuracy in %, 95% interval in brackets"
PLAIN = "differences in points are plain, not tested: see `leverplus compare`"
OF_RUN = ("dataset", "model", "sweep", "arm", "seed")
OF_CELL = ("method", "shots", "n")
FIELDS = (
    "run", "name", "source", "dataset", "model", "sweep", "arm", "seed", "method", "shots", "n",
    "accuracy", "ci_low", "ci_high", "accuracy_text", "delta", "status", "note", "sample",
)  # fmt: skip


def leaderboard_csv(rows: Sequence[Row]) -> str:
    """The rows with a head, accuracies in [0, 1]; the settings of an arm are JSON."""
    out = io.StringIO()
    fields = [f for f in FIELDS if f != "delta" or any("delta" in row for row in rows)]
    writer = csv.DictWriter(out, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        arm = json.dumps(row["arm"], ensure_ascii=False) if row["arm"] else None
        writer.writerow({**row, "arm": arm})
    return out.getvalue()


# A grid for each run: methods down, shots across.


def leaderboard_table(rows: Sequence[Row], every_size: bool = False) -> RenderableType:
    """For each run, methods as rows and shots as columns, at its largest sample or at each; for 80 columns."""
    if not rows:
        return Text(NOTHING)
    parts: list[RenderableType] = []
    for grid in _grids(rows, every_size):
        parts.append(Text(grid.title, style="bold"))
        for start in range(0, len(grid.shots), COLUMNS_AT_80):
            parts.append(_grid_table(grid, grid.shots[start : start + COLUMNS_AT_80]))
        parts += [Text(line, style="dim") for line in (*grid.keys, *grid.remarks)]
        parts.append(Text(""))
    return Group(*parts[:-1])


def _grid_table(grid: _Grid, shots: Sequence[int]) -> Table:
    table = _empty()
    table.add_column("method", overflow="fold")
    for s in shots:
        table.add_column(_shots(s), justify="right", no_wrap=True)
    for method in grid.methods:
        cells = [grid.cells.get((method, s)) for s in shots]
        if any(cells):
            # Accuracy above interval: side by side they would not fit five times in 80 columns.
            table.add_row(Text(method), *(Text("\n".join(_cell(c)) if c else "-") for c in cells))
    return table


def leaderboard_markdown(rows: Sequence[Row], every_size: bool = False) -> str:
    """The same tables in Markdown, one cell `59.0 [56.1, 61.9]`."""
    if not rows:
        return f"{NOTHING}\n"
    lines: list[str] = []
    for grid in _grids(rows, every_size):
        lines += [f"### {_escape(grid.title)}", ""]
        lines.append(f"| method | {' | '.join(_shots(s) for s in grid.shots)} |")
        lines.append("|---|" + "---:|" * len(grid.shots))
        for method in grid.methods:
            cells = (grid.cells.get((method, s)) for s in grid.shots)
            lines.append(f"| {_escape(method)} | {' | '.join(' '.join(_cell(c)) if c else '-' for c in cells)} |")
        lines += ["", f"{'; '.join(grid.keys)}."]
        lines += [f"\n*{_escape(remark)}*" for remark in grid.remarks]
        lines.append("")
    return "\n".join(lines)


class _Grid:
    """One run's cells at one sample size, by (method, shots)."""

    def __init__(self, rows: Sequence[Row]) -> None:
        first = rows[0]
        self.cells: dict[tuple[str, int], Row] = {(row["method"], row["shots"]): row for row in rows}
        # Published tables keep the order of their columns.
        self.methods = list(dict.fromkeys(row["method"] for row in rows))
        if first["source"] == "run":
            self.methods.sort(key=method_order)
        self.shots = sorted({row["shots"] for row in rows})
        about = ", ".join(filter(None, (first["dataset"], first["model"])))
        published = "published, " if first["source"] == "published" else ""
        self.title = f"{first['name']} ({published}{first['run']}){': ' if about else ''}{about}"
        self.keys = [f"{KEY}; n = {first['n']}"]
        if any("delta" in row for row in rows):
            self.keys.append(PLAIN)
        self.remarks = _remarks([first])


def _grids(rows: Sequence[Row], every_size: bool) -> list[_Grid]:
    grids: list[_Grid] = []
    for _, group in groupby(rows, key=lambda row: row["run"]):
        cells = list(group)
        sizes = sorted({row["n"] for row in cells})
        grids += [_Grid([row for row in cells if row["n"] == n]) for n in (sizes if every_size else sizes[-1:])]
    return grids


def _cell(row: Row) -> tuple[str, str]:
    delta = f" {_delta(row)}" if row.get("delta") is not None else ""
    return _accuracy(row) + delta, _interval(row)


# One list: a row a cell, with the columns in which the rows differ.


def largest_samples(rows: Sequence[Row]) -> list[Row]:
    """Of each run only the cells at its largest sample."""
    largest: dict[str, int] = {}
    for row in rows:
        largest[row["run"]] = max(row["n"], largest.get(row["run"], 0))
    return [row for row in rows if row["n"] == largest[row["run"]]]


def leaderboard_list(rows: Sequence[Row], group: Sequence[str], sort: Sequence[str] = ()) -> RenderableType:
    """A table for each value of `group`, a row for each cell in the order given, with what tells cells apart and what
    they are sorted by; what is known of the runs stands below."""
    if not rows:
        return Text(NOTHING)
    columns = _columns(rows, group, sort)
    parts: list[RenderableType] = []
    for title, cells in _sections(rows, group):
        if title:
            parts.append(Text(title, style="bold"))
        table = _empty()
        for column in columns:
            numbers = column not in ("name", "dataset", "model", "method", "sweep", "arm", "source")
            table.add_column(column, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold")
        for row in cells:
            table.add_row(*(Text(_field(row, column)) for column in columns))
        parts += [table, Text("")]
    return Group(*parts, *(Text(line, style="dim") for line in _legend(rows, group, columns)))


def leaderboard_list_markdown(rows: Sequence[Row], group: Sequence[str], sort: Sequence[str] = ()) -> str:
    """The same in Markdown."""
    if not rows:
        return f"{NOTHING}\n"
    columns = _columns(rows, group, sort)
    lines: list[str] = []
    for title, cells in _sections(rows, group):
        lines += [f"### {_escape(title)}", ""] if title else []
        lines += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        lines += [f"| {' | '.join(_escape(_field(row, column)) for column in columns)} |" for row in cells]
        lines.append("")
    return "\n".join([*lines, *(f"*{_escape(line)}*\n" for line in _legend(rows, group, columns))])


def _columns(rows: Sequence[Row], group: Sequence[str], sort: Sequence[str]) -> list[str]:
    """What tells the rows of one table apart, in as few columns as will do, and what they are sorted by."""
    runs = list({row["run"]: row for row in rows}.values())
    asked = {key.removeprefix("-") for key in sort}
    shown = ["name"] if len({_name(run) for run in runs}) > 1 else []
    for field in (*OF_RUN, "run"):
        told = {tuple(_field(run, f) for f in (*group, *shown)) for run in runs}
        finer = {tuple(_field(run, f) for f in (*group, *shown, field)) for run in runs}
        if field in asked or len(told) < len(finer):
            shown.append(field)
    shown += [f for f in OF_CELL if f in asked or len({_field(row, f) for row in rows}) > 1]
    delta = ["delta"] if any("delta" in row for row in rows) else []
    return [*(f for f in shown if f not in group), "accuracy", "95% interval", *delta]


def _sections(rows: Sequence[Row], group: Sequence[str]) -> list[tuple[str, list[Row]]]:
    def title(row: Row) -> str:
        return ", ".join(f"{key} {_field(row, key) or '-'}" for key in group)

    return [(name, list(cells)) for name, cells in groupby(rows, key=title)]


def _legend(rows: Sequence[Row], group: Sequence[str], columns: Sequence[str]) -> list[str]:
    lines = ["accuracy in %"]
    if same := [f"{f} {rows[0][f]}" for f in OF_CELL if f not in group and f not in columns]:
        lines[0] += f"; {', '.join(same)}"
    if "delta" in columns:
        lines.append(PLAIN)
    return [*lines, *_about(rows, columns), *_remarks(rows)]


def _about(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """What is known of the runs of each name, where they agree; where they differ a column says it."""
    lines = []
    for name in dict.fromkeys(map(_name, rows)):
        known = {f: {row[f] for row in rows if _name(row) == name} for f in OF_RUN if f != "arm" and f not in columns}
        metadata = [f"{f} {values.pop()}" for f, values in known.items() if len(values) == 1 and values - {None, ""}]
        lines += [f"{name}: {', '.join(metadata)}"] if metadata else []
    return lines


def _field(row: Row, column: str) -> str:
    if column == "accuracy":
        return _accuracy(row)
    if column == "95% interval":
        return _interval(row)
    if column == "delta":
        return _delta(row) if row["delta"] is not None else "-"
    if column == "name":
        return _name(row)
    if column == "arm":
        return " ".join(f"{key}={value}" for key, value in (row["arm"] or {}).items())
    return "" if row[column] is None else str(row[column])


# What both have.


def _name(row: Row) -> str:
    return f"{row['name']} (published)" if row["source"] == "published" else str(row["name"])


def _remarks(rows: Sequence[Row]) -> list[str]:
    """What a reader must know of the runs, each once."""
    notes = dict.fromkeys(row["note"] for row in rows if row["note"])
    open_ = dict.fromkeys((row["run"], row["name"], row["status"]) for row in rows if row["status"] != "done")
    one = len({row["run"] for row in rows}) == 1
    told = [f"{'this run' if one else f'run {name} ({run})'} is not complete: {status}" for run, name, status in open_]
    return [*notes, *told]


def _accuracy(row: Row) -> str:
    """As it was printed, where it was."""
    return row["accuracy_text"] or percent(row["accuracy"])


def _interval(row: Row) -> str:
    return f"[{percent(row['ci_low'])}, {percent(row['ci_high'])}]"


def _delta(row: Row) -> str:
    """To as many decimals as the accuracy is shown with."""
    text = f"{100 * row['delta']:+.{max(1, len(_accuracy(row).partition('.')[2]))}f}"
    return text if text.strip("+-0.") else text[1:]


def _empty() -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, 0), show_edge=False, pad_edge=False)


def _shots(shots: int) -> str:
    return f"{shots} shot" if shots == 1 else f"{shots} shots"


def _escape(text: Any) -> str:
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")
