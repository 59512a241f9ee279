"""The leaderboard: accuracy and interval of each method at each number of shots, of runs and published tables.

Rows are data, accuracies and differences in [-1, 1]; `leaderboard_layout` draws them, in percent and points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.registry.registry import Registry

Row = dict[str, Any]
ORDER = ("zero_shot", "random", "text_knn", "image_knn", "sft", "rce", "grpo", "oracle")
"""From no help to the most that the pool could give; methods that are not known here stand after these."""

FILTERS = ("dataset", "model", "method", "shots", "n", "seed", "sweep", "source")
GROUPS = ("name", *FILTERS)
SORTS = ("accuracy", "delta", *GROUPS)
"""Best first for accuracy and delta, in order for the rest; a `-` in front turns it round."""


def leaderboard_rows(
    registry: Registry,
    run: str | Sequence[str] | None = None,
    baseline: str | None = None,
    sort: Sequence[str] = (),
    group: Sequence[str] = (),
    **filters: Any,
) -> list[Row]:
    """The recorded cells that fit, with the columns of the view `leaderboard`, and `delta` where there is a baseline.

    `run` is an id, the start of one, a name or `latest`, or several of these. `filters` name FILTERS, each a value or
    several. By default the run started last comes first, then by method, shots and n; with `group` (of GROUPS) rows
    are together that agree in these, and best first within, unless `sort` (of SORTS) says otherwise.
    `baseline` is `RUN:METHOD`, or a METHOD within each run: `delta` is the difference to its cell of the same shots
    and n (one at 0 shots only stands against all), None where there is none on the same questions. It is a plain
    difference; whether it can be told from none is for a paired comparison to say.

    Raises RegistryError for a run, method or baseline that is not there, for a filter or key that is not known, and
    where a value was never evaluated.
    """
    chosen = _runs(registry, run)
    rows = registry.cells([r["id"] for r in chosen])
    place = {r["id"]: i for i, r in enumerate(chosen)}
    method_at = _method_order(chosen)
    if baseline is not None and rows:
        _add_deltas(registry, rows, baseline)
    for column, value in filters.items():
        rows = _keep(rows, column, value, run)
    rows.sort(key=lambda r: (place[r["run"]], method_at(r), r["shots"], r["n"]))
    for key in reversed(list(sort) or (["accuracy"] if group else [])):
        rows = _sorted(rows, key, method_at, baseline is not None)
    for key in reversed(group):
        if key not in GROUPS:
            raise RegistryError(f"the leaderboard cannot be grouped by '{key}'.", did_you_mean(key, GROUPS))
        rows = _sorted(rows, key, method_at, True)
    return rows


def method_order(method: str) -> tuple[int, str]:
    return (ORDER.index(method) if method in ORDER else len(ORDER), method)


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _runs(registry: Registry, run: str | Sequence[str] | None) -> list[Row]:
    if run is None:
        return registry.runs()
    found = [registry.resolve(text) for text in ([run] if isinstance(run, str) else run)]
    return list({r["id"]: r for r in found}.values()) or registry.runs()


def _method_order(runs: Sequence[Row]) -> Callable[[Row], tuple[int, str]]:
    """As in ORDER; those of a published table as its columns stand."""
    columns = {r["id"]: r["recipe"]["published"]["methods"] for r in runs if r["source"] == "published"}

    def place(row: Row) -> tuple[int, str]:
        methods = columns.get(row["run"])
        return method_order(row["method"]) if methods is None else (methods.index(row["method"]), row["method"])

    return place


def _keep(rows: list[Row], column: str, value: Any, run: str | Sequence[str] | None) -> list[Row]:
    if column not in FILTERS:
        raise RegistryError(f"the leaderboard has no filter '{column}'.", did_you_mean(column, FILTERS))
    wanted = list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
    if not wanted or not rows:
        return rows
    there = {row[column] for row in rows}
    for one in wanted:
        if one not in there:
            known = sorted((x for x in there if x is not None), key=lambda x: (str(type(x)), x))
            hint = (
                did_you_mean(one, known) if isinstance(one, str) else f"Known: {', '.join(map(str, known)) or 'none'}."
            )
            of = f" in run {run if isinstance(run, str) else ', '.join(run)}" if run else ""
            raise RegistryError(f"no cell with {column} {one}{of}.", hint)
    return [row for row in rows if row[column] in wanted]


def _sorted(rows: list[Row], key: str, method_at: Callable[[Row], tuple[int, str]], has_delta: bool) -> list[Row]:
    """Stable; rows that have no value stand last whichever way it goes."""
    column, turned = key.removeprefix("-"), key.startswith("-")
    if column not in SORTS:
        raise RegistryError(f"the leaderboard cannot be sorted by '{column}'.", did_you_mean(column, SORTS))
    if column == "delta" and not has_delta:
        raise RegistryError("there is no delta to sort by.", "Name a baseline: --baseline METHOD or RUN:METHOD.")
    rank_key = column in ("accuracy", "delta")
    some = [row for row in rows if row[column] is not None]
    value = method_at if column == "method" else lambda row: row[column]
    some.sort(key=value, reverse=rank_key != turned)
    return some + [row for row in rows if row[column] is None]


def _add_deltas(registry: Registry, rows: Sequence[Row], baseline: str) -> None:
    name, colon, method = baseline.rpartition(":")
    if colon:
        run = registry.resolve(name)
        cells = registry.cells([run["id"]], method=method)
        if not cells:
            known = {c["method"] for c in registry.cells([run["id"]])}
            raise RegistryError(
                f"no method '{method}' in run {run['name']} ({run['id']}).", did_you_mean(method, known)
            )
        of = {row["run"]: cells for row in rows}
    else:
        of = {row["run"]: [r for r in rows if r["run"] == row["run"] and r["method"] == baseline] for row in rows}
        if not any(of.values()):
            raise RegistryError(
                f"no run has a method '{baseline}'.", did_you_mean(baseline, {r["method"] for r in rows})
            )
    base = {run: _by_place(cells) for run, cells in of.items()}
    for row in rows:
        here = base[row["run"]]
        row["delta"] = _delta(row, here.get((row["shots"], row["n"]), here.get((None, row["n"]))))
    if all(row["delta"] is None for row in rows):
        raise RegistryError(
            f"no cell has the questions, shots and n of a cell of {baseline}.", "Choose another baseline."
        )


def _by_place(cells: Sequence[Row]) -> dict[tuple[int | None, int], Row]:
    anywhere = all(c["shots"] == 0 for c in cells)
    return {(None if anywhere else c["shots"], c["n"]): c for c in cells}


def _delta(row: Row, base: Mapping[str, Any] | None) -> float | None:
    """None where it is known that the two answered other questions."""
    if base is None or (row["dataset"] and base["dataset"] and row["dataset"] != base["dataset"]):
        return None
    if row["sample"] and base["sample"] and row["sample"] != base["sample"]:
        return None
    if row["accuracy_text"] and base["accuracy_text"]:
        return float((Decimal(row["accuracy_text"]) - Decimal(base["accuracy_text"])) / 100)
    return float(row["accuracy"] - base["accuracy"])
