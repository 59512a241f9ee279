"""The leaderboard: accuracy and interval of each method at each number of shots, per run.

Rows are data, accuracies in [0, 1]; what is printed is in percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.registry import Registry

Row = dict[str, Any]
ORDER = ("zero_shot", "random", "text_knn", "image_knn", "sft", "rce", "grpo", "oracle")
"""From no help to the most that the pool could give; methods that are not known here stand after these."""

COLUMNS_AT_80 = 5
KEY = "accuracy in %, 95% interval in brackets"


def leaderboard_rows(
    registry: Registry,
    run: str | None = None,
    method: str | None = None,
    shots: int | None = None,
    n: int | None = None,
) -> list[Row]:
    """The recorded cells that fit, with run (its id), name, dataset, model, method, shots, n, accuracy, ci_low,
    ci_high, status and note; the run started last first, then by method, shots and n.

    `run` is an id, the start of one, a name or `latest`. Raises RegistryError for a run or method that is not there,
    and where a number of shots or a sample size was never evaluated.
    """
    chosen = registry.runs() if run is None else [registry.resolve(run)]
    rows = registry.cells([r["id"] for r in chosen])
    for column, value in (("method", method), ("shots", shots), ("n", n)):
        if value is None or not rows:
            continue
        kept = [row for row in rows if row[column] == value]
        if not kept:
            there = sorted({row[column] for row in rows})
            known = did_you_mean(str(value), there) if column == "method" else f"Known: {', '.join(map(str, there))}."
            raise RegistryError(f"no cell with {column} {value}{f' in run {run}' if run else ''}.", known)
        rows = kept
    place = {r["id"]: i for i, r in enumerate(chosen)}
    return sorted(rows, key=lambda row: (place[row["run"]], *method_order(row["method"]), row["shots"], row["n"]))


def method_order(method: str) -> tuple[int, str]:
    return (ORDER.index(method) if method in ORDER else len(ORDER), method)


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def leaderboard_table(rows: Sequence[Row]) -> RenderableType:
    """For each run, methods as rows and shots as columns at its largest sample; reads well at 80 columns."""
    if not rows:
        return Text("nothing evaluated yet")
    parts: list[RenderableType] = []
    for run in _grids(rows):
        parts.append(Text(run.title, style="bold"))
        for start in range(0, len(run.shots), COLUMNS_AT_80):
            parts.append(_table(run, run.shots[start : start + COLUMNS_AT_80]))
        parts += [Text(line, style="dim") for line in (f"{KEY}; n = {run.n}", *run.remarks)]
        parts.append(Text(""))
    return Group(*parts[:-1])


def _table(run: _Grid, shots: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), show_edge=False, pad_edge=False)
    table.add_column("method", overflow="fold")
    for s in shots:
        table.add_column(_shots(s), justify="right", no_wrap=True)
    for method in run.methods:
        cells = [run.cells.get((method, s)) for s in shots]
        if any(cells):
            # Accuracy above interval: side by side they would not fit five times in 80 columns.
            table.add_row(Text(method), *(Text("\n".join(_cell(c)) if c else "-") for c in cells))
    return table


def leaderboard_markdown(rows: Sequence[Row]) -> str:
    """The same tables in Markdown, one cell `59.0 [56.1, 61.9]`."""
    if not rows:
        return "nothing evaluated yet\n"
    lines: list[str] = []
    for run in _grids(rows):
        lines += [f"### {_escape(run.title)}", ""]
        lines.append(f"| method | {' | '.join(_shots(s) for s in run.shots)} |")
        lines.append("|---|" + "---:|" * len(run.shots))
        for method in run.methods:
            cells = (run.cells.get((method, s)) for s in run.shots)
            lines.append(f"| {_escape(method)} | {' | '.join(' '.join(_cell(c)) if c else '-' for c in cells)} |")
        lines += ["", f"{KEY}; n = {run.n}."]
        lines += [f"\n*{_escape(remark)}*" for remark in run.remarks]
        lines.append("")
    return "\n".join(lines)


class _Grid:
    """One run's cells at its largest sample size, by (method, shots)."""

    def __init__(self, rows: Sequence[Row]) -> None:
        first: Mapping[str, Any] = rows[0]
        self.n: int = max(row["n"] for row in rows)
        shown = [row for row in rows if row["n"] == self.n]
        self.cells: dict[tuple[str, int], Row] = {(row["method"], row["shots"]): row for row in shown}
        self.methods = sorted({row["method"] for row in shown}, key=method_order)
        self.shots = sorted({row["shots"] for row in shown})
        self.title = f"{first['name']} ({first['run']}): {first['dataset']}, {first['model']}"
        self.remarks: list[str] = [first["note"]] if first.get("note") else []
        if first.get("status", "done") != "done":
            self.remarks.append(f"this run is not complete: {first['status']}")


def _grids(rows: Sequence[Row]) -> list[_Grid]:
    return [_Grid(list(group)) for _, group in groupby(rows, key=lambda row: row["run"])]


def _cell(row: Row) -> tuple[str, str]:
    return percent(row["accuracy"]), f"[{percent(row['ci_low'])}, {percent(row['ci_high'])}]"


def _shots(shots: int) -> str:
    return f"{shots} shot" if shots == 1 else f"{shots} shots"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("_", "\\_").replace("*", "\\*")
