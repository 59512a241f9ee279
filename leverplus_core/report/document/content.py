"""The data of a report: numbers without words, order or layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import mean
from typing import Any

from leverplus_core.io import canonical_json
from leverplus_core.registry.registry import Registry
from leverplus_core.report.document.spec import Configuration, Contender, ReportSpec, split_settings
from leverplus_core.report.grid import grid_rows, primary_grid
from leverplus_core.report.headline import Headline, comparisons, headline_of
from leverplus_core.report.headroom import SHARE, gap_rows
from leverplus_core.report.methods import CEILING, FLOOR, Row, merged_order
from leverplus_core.report.pairing import SAME, Member, Pairing, cells_by, common_cells, member, members, nested
from leverplus_core.report.primary import UNMARKED, Endpoint, family
from leverplus_core.report.published import unpaired_rows
from leverplus_core.statistics import accuracy_interval


@dataclass(frozen=True)
class Content:
    """Accuracies and differences in units of accuracy, except in `unpaired`, which has exact decimals beside them.

    - baseline, contenders: labels of columns; `own` are those with predictions, `published` those of published tables;
    - configurations: label, published, dataset, model, methods and runs (id, name, sweep, seed, status, commit,
      note, started_at, and the versions and machine of `provenance.describe_environment` as `environment`);
    - differing, common: setting, and its value in each configuration (None where it has none), or in all;
    - data: what balancing did, each outcome once: labels, runs, before, after and shortfall, means over the runs;
    - primary: rows of `primary_grid`, the baseline's first, with `copied` and `prompts` as in `headlines`;
    - headlines: for each configuration with predictions its `label` and the values of its `Headline`;
    - endpoints: the primary comparisons of the headlines, one family (see `with_corrections`), with the labels `arm`
      and `baseline`, and the `share` (share_low, share_high) of the gap from the best baseline that the method closes;
    - spent: label, method, prompts, accuracy, ci_low, ci_high and seeds of every method whose prompts are recorded;
    - asked: how many distinct runs have answered these questions; None where it is not known;
    - grid: rows of `grid_rows`, the baseline's in every row, and `best` where no cell of the same n and shots is higher
      (ties shared);
    - ceilings: the cells of the oracle, which saw the answers and is in no comparison: `labels` of the configurations
      that share them, and `cells` with n, shots, accuracy, ci_low and ci_high; none where it is a column of its own;
    - totals: means of the grid's cells per contender, over all (shots and n None), by shots and by n;
    - unpaired: rows of `unpaired_rows`, of each published table and the baseline, or of every contender and a
      published one;
    - headroom: rows of `headroom_rows` with their `contender`;
    - curves: labels, stage, metric, points (step, value) and chosen (the epoch; None where there are several seeds),
      each trained policy once, means over seeds;
    - cost: stage, results (distinct ones), and the seconds and prompts that they took;
    - shown: label, run (id, of its first seed), seed and method of all whose answers can be looked at, question by
      question: of one configuration all methods, of several the columns, their oracles and the baseline;
    - left_out: ids of the runs of a sweep that have not finished.
    """

    baseline: str
    contenders: list[str]
    own: list[str]
    published: list[str]
    configurations: list[Row]
    differing: list[Row]
    common: list[Row]
    data: list[Row]
    primary: list[Row]
    headlines: list[Row]
    endpoints: list[Row]
    spent: list[Row]
    asked: int | None
    grid: list[Row]
    ceilings: list[Row]
    totals: list[Row]
    unpaired: list[list[Row]]
    headroom: list[Row]
    curves: list[Row]
    cost: list[Row]
    shown: list[Row]
    left_out: list[str]

    @property
    def compared(self) -> list[Row]:
        """The rows of the grid without the baseline's own."""
        return [row for row in self.grid if row["baseline"] is not None]

    @property
    def largest(self) -> tuple[list[Row], int]:
        """Those of the largest sample, and its size; ([], 0) without a grid."""
        n = max((row["n"] for row in self.compared), default=0)
        return [row for row in self.compared if row["n"] == n], n


def report_content(
    registry: Registry, names: Sequence[str], baseline: str | None = None, methods: Sequence[str] = ()
) -> Content:
    """The data of a report on `names` with `baseline`; see `ReportSpec.of` for what these may be.

    Raises RegistryError for an unknown name, and where there is no question in common.
    """
    spec = ReportSpec.of(registry, names, baseline, methods)
    base, everyone = spec.baseline, spec.contenders
    own = [contender for contender in everyone if not contender.published]
    published = [contender for contender in everyone if contender.published]
    paired = [] if base.published else own
    grid = _with_best(grid_rows(registry, [c.arm() for c in paired], base.arm())) if paired else []
    mine = [c for c in spec.configurations if not c.published]
    stages = {run["id"]: {row["name"]: row for row in registry.stages(run["id"])} for c in mine for run in c.runs}
    settings = [c.settings() for c in mine]
    differing, common = split_settings(settings)
    pairing = Pairing(registry)
    arms = {c.label: _members(registry, c) for c in mine}
    heads = {c.label: headline_of(registry, pairing, arms[c.label], c.label) for c in mine}
    named = {(c.configuration.label, c.method): c.label for c in (*own, base)}
    endpoints = _endpoints(pairing, arms, heads, named)
    return Content(
        baseline=base.label,
        contenders=[c.label for c in everyone],
        own=[c.label for c in own],
        published=[c.label for c in published],
        configurations=[_configuration(c) for c in spec.configurations],
        differing=[{"setting": key, "values": [one.get(key) for one in settings]} for key in differing],
        common=[{"setting": key, "value": settings[0][key]} for key in common],
        data=_data(mine, stages),
        primary=_primary(registry, paired, base, heads, endpoints),
        headlines=[{"label": label, **head.data()} for label, head in heads.items()],
        endpoints=endpoints,
        spent=_spent(heads, own, base),
        asked=max((head.asked for head in heads.values() if head.asked is not None), default=None),
        grid=grid,
        ceilings=_ceilings(pairing, arms, paired, base),
        totals=_totals(grid),
        unpaired=_unpaired(registry, everyone if base.published else published, base),
        headroom=_headroom(pairing, own, arms, heads),
        curves=_curves(registry, mine, stages),
        cost=_cost(stages),
        shown=_shown(mine, own, base),
        left_out=[run["id"] for run in spec.left_out],
    )


# What ran.


def _configuration(c: Configuration) -> Row:
    runs = [
        {key: run[key] for key in ("id", "name", "sweep", "seed", "status", "note", "started_at", "environment")}
        | {"commit": run["git"].get("commit")}
        for run in c.runs
    ]
    first = c.runs[0]
    about = {"dataset": first["dataset"], "model": first["model"], "methods": list(c.methods), "runs": runs}
    return {"label": c.label, "published": c.published, "imported": first["source"] == "imported", **about}


Stages = Mapping[str, Mapping[str, Row]]
"""run id -> stage -> its row of `stages`, in the order of the pipeline"""


def _data(configurations: Sequence[Configuration], stages: Stages) -> list[Row]:
    """Configurations of one outcome share a row."""
    outcomes: dict[str, tuple[list[str], list[Mapping[str, Any]]]] = {}
    for c in configurations:
        rows = [
            row for run in c.runs if (row := stages[run["id"]].get("balance")) and "before" in (row["metadata"] or {})
        ]
        if rows:
            key = canonical_json(sorted(row["fingerprint"] for row in rows))
            outcomes.setdefault(key, ([], [row["metadata"] for row in rows]))[0].append(c.label)
    return [
        {"labels": labels, "runs": len(found)}
        | {key: _mean([f[key] for f in found]) for key in ("before", "after", "shortfall")}
        for labels, found in outcomes.values()
    ]


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: mean(row.get(key, 0) for row in rows) for key in dict.fromkeys(key for row in rows for key in row)}


# The primary endpoint.

Arms = Mapping[str, Sequence[Member]]
"""method -> its seeded runs"""


def _members(registry: Registry, c: Configuration) -> Arms:
    held = [members(registry, run_id) for run_id in c.ids]
    return {method: [there[method] for there in held] for method in c.methods}


def _primary(
    registry: Registry, contenders: Sequence[Contender], base: Contender, heads: Mapping[str, Headline],
    endpoints: Sequence[Row],
) -> list[Row]:  # fmt: skip
    """What a method costs and copies is a matter of its own configuration. A comparison that is an endpoint as well has
    the interval of that family."""
    if not contenders:
        return []
    about = {
        c.label: next((row for row in heads[c.configuration.label].rows if row["method"] == c.method), None)
        for c in [*contenders, base]
        if c.configuration.label in heads
    }
    known = {(row["arm"], row["baseline"]): {key: row[key] for key in UNMARKED} for row in endpoints}
    return [
        row
        | {key: (about.get(row["arm"]) or {}).get(key) for key in ("copied", "prompts")}
        | (known.get((row["arm"], row["baseline"]), {}) if row["counts"] else {})
        for row in primary_grid(registry, [c.arm() for c in contenders], base.arm())
    ]


def _endpoints(
    pairing: Pairing, arms: Mapping[str, Arms], heads: Mapping[str, Headline], named: Mapping[tuple[str, str], str]
) -> list[Row]:
    """What is no column of the report is named by its configuration and method."""

    def name(label: str, method: str) -> str:
        return named.get((label, method), method if len(heads) == 1 else f"{label} · {method}")

    found = []
    for label, head in heads.items():
        endpoint = replace(
            Endpoint.of(next(iter(arms[label].values()))[0].run, list(arms[label])), shots=tuple(head.over)
        )
        found += [(label, head, *one) for one in comparisons(pairing, endpoint, arms[label], head.best)]
    rows = family([(pair, True) for *_, pair in found])
    return [
        {"arm": name(label, str(head.method)), "baseline": name(label, other), **row} | _closed(head, other)
        for (label, head, other, _), row in zip(found, rows, strict=True)
    ]


def _closed(head: Headline, other: str) -> Row:
    own = next(row for row in head.rows if row["method"] == head.method)
    best = head.best is not None and other == head.best.name
    return {key: own[key] if best else None for key in SHARE}


def _spent(heads: Mapping[str, Headline], contenders: Sequence[Contender], base: Contender) -> list[Row]:
    """All methods of a single configuration, else the contenders and the baselines of the first; not the oracle."""
    named = {(c.configuration.label, c.method): c.label for c in (*contenders, base)}
    first, rows = next(iter(heads), ""), list[Row]()
    for label, head in heads.items():
        for row in head.rows:
            method = row["method"]
            shown = (label, method) in named or len(heads) == 1 or (label == first and row["role"] == "baseline")
            if shown and row["prompts"] is not None and row["role"] in ("trained", "baseline"):
                kept = {key: row[key] for key in ("method", "prompts", "accuracy", "ci_low", "ci_high")}
                rows.append({"label": named.get((label, method), method), "seeds": head.seeds, **kept})
    return rows


# What came out.


def _with_best(grid: Sequence[Row]) -> list[Row]:
    """The grid with `best`. A baseline without demonstrations is repeated at every number of shots that it is compared
    with; where not all cells of one n and shots have the same questions, none is best."""
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


def _ceilings(
    pairing: Pairing, arms: Mapping[str, Arms], contenders: Sequence[Contender], base: Contender
) -> list[Row]:
    if any(c.method == CEILING for c in (*contenders, base)):
        return []
    found: dict[str, Row] = {}
    for label in dict.fromkeys(c.configuration.label for c in (base, *contenders)):
        held = arms.get(label, {}).get(CEILING, ())
        cells = [
            {"shots": shots, "n": size, "accuracy": own.mean, "ci_low": own.low, "ci_high": own.high}
            for shots, sizes in sorted(common_cells(held).items() if held else ())
            if (pairs := pairing.pairs(held, [], shots, shots)) is not None
            for size, sample in nested(pairs, sizes)
            if (own := accuracy_interval(sample.a, sample.images))
        ]
        if cells:
            found.setdefault(canonical_json(cells), {"labels": [], "cells": cells})["labels"].append(label)
    return list(found.values())


def _totals(grid: Sequence[Row]) -> list[Row]:
    compared = (row for row in grid if row["baseline"] is not None)
    return [
        {"contender": contender, **over, **_total(cells)}
        for contender, group in groupby(compared, key=lambda row: row["arm"])
        for over, cells in cells_by(list(group))
    ]


def _total(cells: Sequence[Row]) -> Row:
    deltas, marks = [row["delta"] for row in cells], [row["mark"] for row in cells]
    return {
        "cells": len(cells),
        **{key: mean(row[key] for row in cells) for key in ("accuracy", "baseline_accuracy", "delta")},
        "above": sum(d > SAME for d in deltas),
        "below": sum(d < -SAME for d in deltas),
        "level": sum(abs(d) <= SAME for d in deltas),
        "better": marks.count("better"), "worse": marks.count("worse"), "unseen": marks.count("no difference seen"),
    }  # fmt: skip


def _unpaired(registry: Registry, contenders: Sequence[Contender], base: Contender) -> list[list[Row]]:
    """One family per configuration, in the order of its columns."""
    found, against = [], member(registry, base.arm().members[0])
    for _, group in groupby(contenders, key=lambda contender: contender.configuration.ids):
        some = list(group)
        label = some[0].configuration.label
        pairs = [(member(registry, contender.arm().members[0]), against) for contender in some]
        rows = unpaired_rows(registry, pairs, label, base.configuration.label)
        names = {f"{label}:{contender.method}": contender.label for contender in some}
        found.append([row | {"a_name": names[row["a_name"]], "b_name": base.label} for row in rows])
    return found


def _headroom(
    pairing: Pairing, contenders: Sequence[Contender], arms: Mapping[str, Arms], heads: Mapping[str, Headline]
) -> list[Row]:
    rows: list[Row] = []
    for c in contenders:
        label = c.configuration.label
        if c.method not in (FLOOR, CEILING) and c.method in arms[label]:
            found = gap_rows(pairing, arms[label], c.method, heads[label].best)
            rows += [{"contender": c.label, **row} for row in found]
    return rows


def _shown(configurations: Sequence[Configuration], contenders: Sequence[Contender], base: Contender) -> list[Row]:
    found = {(c.configuration.ids[0], c.method): (c.label, c.configuration) for c in (base, *contenders)}
    for c in configurations:
        alone = c.ids == base.configuration.ids and len(configurations) == 1
        for method in c.methods:
            if alone or (method == CEILING and c.ids[0] in {run_id for run_id, _ in found}):
                label = method if len(configurations) == 1 else f"{c.label} · {method}"
                found.setdefault((c.ids[0], method), (label, c))
    order = {method: i for c in configurations if len(configurations) == 1 for i, method in enumerate(c.methods)}
    rows = [
        {"label": label, "run": run_id, "seed": c.runs[0]["seed"], "method": method}
        for (run_id, method), (label, c) in found.items()
        if not c.published
    ]
    return sorted(rows, key=lambda row: order.get(row["method"], 0))


# How it was made.


def _curves(registry: Registry, configurations: Sequence[Configuration], stages: Stages) -> list[Row]:
    found: dict[str, Row] = {}
    for c in configurations:
        points: dict[tuple[str, str], dict[int, list[float]]] = {}
        for run in c.runs:
            for row in registry.curve_rows(run["id"]):
                if row["value"] is not None:
                    steps = points.setdefault((row["stage"], row["metric"]), {})
                    steps.setdefault(row["step"], []).append(row["value"])
        for (stage, metric), steps in points.items():
            sources = sorted(str(stages[run["id"]].get(stage, {}).get("fingerprint", run["id"])) for run in c.runs)
            points_ = [(step, mean(values)) for step, values in steps.items()]
            chosen = [(stages[run["id"]].get(stage, {}).get("metadata") or {}).get("chosen_epoch") for run in c.runs]
            line: Row = {"labels": [], "stage": stage, "metric": metric, "points": points_}
            line["chosen"] = chosen[0] if len(chosen) == 1 else None
            found.setdefault(canonical_json([stage, metric, sources]), line)["labels"].append(c.label)
    order = merged_order([*map(list, stages.values()), [line["stage"] for line in found.values()]])
    return sorted(found.values(), key=lambda line: (order.index(line["stage"]), line["metric"]))


def _cost(stages: Stages) -> list[Row]:
    """Each result once, whichever runs share it; an evaluation belongs to its run."""
    results: dict[tuple[str, str], Mapping[str, float]] = {}
    for run_id, rows in stages.items():
        for name, row in rows.items():
            unknown = {} if row["reused"] else {"seconds": row["seconds"]}
            key = run_id if name == "evaluate" else row["fingerprint"]
            results[name, key] = (row["metadata"] or {}).get("cost") or unknown
    found = []
    for stage in merged_order(map(list, stages.values())):
        costs = [cost for (name, _), cost in results.items() if name == stage]
        found.append({"stage": stage, "results": len(costs), **{k: _sum(costs, k) for k in ("seconds", "prompts")}})
    return found


def _sum(costs: Sequence[Mapping[str, float]], key: str) -> float | None:
    """None where it is unknown for one of them."""
    return sum(cost[key] for cost in costs) if all(key in cost for cost in costs) else None
