"""All that a report says as data: facts in numbers, without words, order or layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import mean
from typing import Any

from leverplus_core.io import canonical_json
from leverplus_core.registry.registry import Registry
from leverplus_core.report.document.lineup import Configuration, Side, line_up
from leverplus_core.report.grid import grid_rows
from leverplus_core.report.headroom import CEILING, FLOOR, gap_rows
from leverplus_core.report.pairing import Member, Pairing, Row, member
from leverplus_core.report.published import unpaired_rows

STAGES = ("encode", "pool", "beams", "sft", "candidates", "mine", "balance", "rce", "grpo", "online", "evaluate")
SAME = 1e-9
"""Accuracies nearer than this are equal: means of thousandths that were added in another order."""


@dataclass(frozen=True)
class Content:
    """Accuracies and differences in units of accuracy, except in `unpaired`, which has exact decimals beside them.

    - baseline, sides: labels of columns; `own` those with predictions, `published` those of published tables;
    - configurations: label, published, dataset, model, methods and runs (id, name, seed, status, commit, note);
    - differing, common: setting, and its value in each configuration (None where it has none), or in all;
    - data: what balancing did, each outcome once: labels, runs, before, after and unmet, means over the runs;
    - grid: rows of `grid_rows`, the baseline's in every row, and `best` where no cell of the same n and shots is higher
      (ties shared);
    - totals: means of the grid's cells by side, over all (shots and n None), by shots and by n;
    - unpaired: rows of `unpaired_rows`, of each published table against the baseline, or of every side against a
      published one;
    - headroom: rows of `headroom_rows` with their `side`;
    - curves: labels, stage, metric and points (step, value), each trained policy once, means over seeds;
    - cost: stage, results (distinct ones), seconds and prompts of making them;
    - left_out: ids of runs of a sweep that have not finished.
    """

    baseline: str
    sides: list[str]
    own: list[str]
    published: list[str]
    baseline_published: bool
    configurations: list[Row]
    differing: list[Row]
    common: list[Row]
    data: list[Row]
    grid: list[Row]
    totals: list[Row]
    unpaired: list[list[Row]]
    headroom: list[Row]
    curves: list[Row]
    cost: list[Row]
    left_out: list[str]


def report_content(
    registry: Registry, names: Sequence[str], baseline: str | None = None, methods: Sequence[str] = ()
) -> Content:
    """The facts of a report on `names` against `baseline`; see `line_up` for what these may be.

    Raises RegistryError for what is not in the registry, and where there is no question in common.
    """
    lineup = line_up(registry, names, baseline, methods)
    base = lineup.baseline
    own = [side for side in lineup.sides if not side.published]
    published = [side for side in lineup.sides if side.published]
    paired = [] if base.published else own
    grid = _cells(grid_rows(registry, [side.arm() for side in paired], base.arm())) if paired else []
    mine = [c for c in lineup.configurations if not c.published]
    stages = {run["id"]: {row["name"]: row for row in registry.stages(run["id"])} for c in mine for run in c.runs}
    differing, common = _settings(mine)
    return Content(
        baseline=base.label,
        sides=[side.label for side in lineup.sides],
        own=[side.label for side in own],
        published=[side.label for side in published],
        baseline_published=base.published,
        configurations=[_configuration(c) for c in lineup.configurations],
        differing=differing,
        common=common,
        data=_data(mine, stages),
        grid=grid,
        totals=_totals(grid),
        unpaired=_unpaired(registry, lineup.sides if base.published else published, base),
        headroom=_headroom(registry, own),
        curves=_curves(registry, mine, stages),
        cost=_cost(stages),
        left_out=[run["id"] for run in lineup.left_out],
    )


# What ran.


def _configuration(c: Configuration) -> Row:
    runs = [
        {key: run[key] for key in ("id", "name", "seed", "status", "note")} | {"commit": run["git"].get("commit")}
        for run in c.runs
    ]
    first = c.runs[0]
    metadata = {"dataset": first["dataset"], "model": first["model"], "methods": list(c.methods), "runs": runs}
    return {"label": c.label, "published": c.published, **metadata}


def _settings(configurations: Sequence[Configuration]) -> tuple[list[Row], list[Row]]:
    every = [c.settings() for c in configurations]
    differing: list[Row] = []
    common: list[Row] = []
    for key in dict.fromkeys(key for one in every for key in one):
        values = [one.get(key) for one in every]
        if len({canonical_json([key in one, value]) for one, value in zip(every, values, strict=True)}) > 1:
            differing.append({"setting": key, "values": values})
        else:
            common.append({"setting": key, "value": values[0]})
    return differing, common


Stages = Mapping[str, Mapping[str, Row]]
"""run id -> stage -> its row of `stages`"""


def _data(configurations: Sequence[Configuration], stages: Stages) -> list[Row]:
    """Configurations of one outcome share a row."""
    found: dict[str, tuple[list[str], list[Mapping[str, Any]]]] = {}
    for c in configurations:
        rows = [row for run in c.runs if (row := stages[run["id"]].get("balance")) and "before" in (row["facts"] or {})]
        if rows:
            key = canonical_json(sorted(row["fingerprint"] for row in rows))
            found.setdefault(key, ([], [row["facts"] for row in rows]))[0].append(c.label)
    return [
        {
            "labels": labels,
            "runs": len(metadata),
            "before": _mean([f["before"] for f in metadata]),
            "after": _mean([f["after"] for f in metadata]),
            "unmet": _mean([f["unmet"] for f in metadata]),
        }
        for labels, metadata in found.values()
    ]


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: mean(row.get(key, 0) for row in rows) for key in dict.fromkeys(key for row in rows for key in row)}


# What came out.


def _cells(grid: Sequence[Row]) -> list[Row]:
    """The grid with `best`. A baseline without demonstrations is there at every number of shots that it stands against;
    where a row's sides answered other questions, none is best."""
    own = [row for row in grid if row["baseline"] is None]
    compared = [row for row in grid if row["baseline"] is not None]
    if {row["shots"] for row in own} == {0}:
        own = [row | {"shots": shots} for shots in sorted({row["shots"] for row in compared}) for row in own]
    found = []
    for row in [*own, *compared]:
        rivals = [r for r in (*own, *compared) if (r["n"], r["shots"]) == (row["n"], row["shots"])]
        alike = len(rivals) > 1 and len({r["questions"] for r in rivals}) == 1
        found.append(row | {"best": alike and row["accuracy"] >= max(r["accuracy"] for r in rivals) - SAME})
    return found


def _totals(grid: Sequence[Row]) -> list[Row]:
    compared = [row for row in grid if row["baseline"] is not None]
    rows: list[Row] = []
    for side, group in groupby(compared, key=lambda row: row["arm"]):
        cells = list(group)
        rows.append(_total(side, cells, None, None))
        rows += [_total(side, some, shots, None) for shots, some in _split(cells, "shots")]
        rows += [_total(side, some, None, n) for n, some in _split(cells, "n")]
    return rows


def _split(cells: Sequence[Row], key: str) -> list[tuple[int, list[Row]]]:
    return [(v, [row for row in cells if row[key] == v]) for v in sorted({row[key] for row in cells})]


def _total(side: str, cells: Sequence[Row], shots: int | None, n: int | None) -> Row:
    deltas = [row["delta"] for row in cells]
    marks = [row["mark"] for row in cells]
    return {
        "side": side, "shots": shots, "n": n, "cells": len(cells),
        "accuracy": mean(row["accuracy"] for row in cells),
        "baseline_accuracy": mean(row["baseline_accuracy"] for row in cells),
        "delta": mean(deltas),
        "above": sum(d > SAME for d in deltas),
        "below": sum(d < -SAME for d in deltas),
        "level": sum(abs(d) <= SAME for d in deltas),
        "better": marks.count("better"), "worse": marks.count("worse"), "unseen": marks.count("no difference seen"),
    }  # fmt: skip


def _unpaired(registry: Registry, sides: Sequence[Side], base: Side) -> list[list[Row]]:
    """One family for each configuration, in the order of its columns."""
    found = []
    (against,) = [member(registry, text) for text in base.arm().members[:1]]
    for _, group in groupby(sides, key=lambda side: side.configuration.runs[0]["id"]):
        some = list(group)
        pairs = [(member(registry, text), against) for side in some for text in side.arm().members[:1]]
        label = some[0].configuration.label
        rows = unpaired_rows(registry, pairs, label, base.configuration.label)
        names = {f"{label}:{side.method}": side.label for side in some}
        found.append([row | {"a_name": names[row["a_name"]], "b_name": base.label} for row in rows])
    return found


def _headroom(registry: Registry, sides: Sequence[Side]) -> list[Row]:
    pairing = Pairing(registry)
    rows: list[Row] = []
    for side in sides:
        wanted = [
            m for m in dict.fromkeys((FLOOR, "text_knn", CEILING, side.method)) if m in side.configuration.methods
        ]
        there: dict[str, list[Member]] = {
            m: [member(registry, f"{run['id']}:{m}") for run in side.configuration.runs] for m in wanted
        }
        if side.method not in (FLOOR, CEILING):
            rows += [{"side": side.label, **row} for row in gap_rows(pairing, there, side.method)]
    return rows


# How it was made.


def _curves(registry: Registry, configurations: Sequence[Configuration], stages: Stages) -> list[Row]:
    found: dict[str, Row] = {}
    for c in configurations:
        points: dict[tuple[str, str], dict[int, list[float]]] = {}
        for run in c.runs:
            for row in registry.curves(run["id"]):
                if row["value"] is not None:
                    steps = points.setdefault((row["stage"], row["metric"]), {})
                    steps.setdefault(row["step"], []).append(row["value"])
        for (stage, metric), steps in points.items():
            made = sorted(str(stages[run["id"]].get(stage, {}).get("fingerprint", run["id"])) for run in c.runs)
            line: Row = {
                "labels": [],
                "stage": stage,
                "metric": metric,
                "points": [(s, mean(v)) for s, v in steps.items()],
            }
            found.setdefault(canonical_json([stage, metric, made]), line)["labels"].append(c.label)
    return sorted(found.values(), key=lambda line: (*_place(line["stage"]), line["metric"]))


def _cost(stages: Stages) -> list[Row]:
    """Each result once, whichever runs share it; an evaluation is a run's own."""
    made: dict[tuple[str, str], Mapping[str, float]] = {}
    for run_id, rows in stages.items():
        for name, row in rows.items():
            cost = (row["facts"] or {}).get("cost")
            made[name, run_id if name == "evaluate" else row["fingerprint"]] = cost or (
                {} if row["reused"] else {"seconds": row["seconds"]}
            )
    found = []
    for stage in sorted({name for name, _ in made}, key=_place):
        costs = [cost for (name, _), cost in made.items() if name == stage]
        found.append({"stage": stage, "results": len(costs), **{k: _sum(costs, k) for k in ("seconds", "prompts")}})
    return found


def _sum(costs: Sequence[Mapping[str, float]], key: str) -> float | None:
    """None where it is not known of all."""
    return sum(cost[key] for cost in costs) if all(key in cost for cost in costs) else None


def _place(stage: str) -> tuple[int, str]:
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), stage)
