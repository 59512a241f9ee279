"""The pages of results: the leaderboard, the runs, one run with its stages and curves, and the grid of one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from leverplus_core.errors import RegistryError, did_you_mean
from leverplus_core.recipes.loader import as_yaml
from leverplus_core.registry.registry import Registry
from leverplus_core.registry.scores import largest_samples
from leverplus_core.report.explorer import Outcome
from leverplus_core.report.leaderboard import leaderboard_rows, sorted_rows
from leverplus_core.report.methods import CEILING, Row, ordered_methods, trained_methods
from leverplus_core.view.curves import charts
from leverplus_core.view.query import Query, link
from leverplus_core.view.questions import default_pair

FILTERS: Mapping[str, str] = {
    "name": "run", "dataset": "dataset", "model": "model", "method": "method", "shots": "shots", "n": "n",
    "seed": "seed", "sweep": "sweep", "source": "source",
}  # fmt: skip
"""Column -> what the page calls it."""
SORTS = ("name", "method", "shots", "n", "accuracy", "delta")
FALLING = ("accuracy", "delta")
"""Columns whose highest values a reader wants first."""
ROWS = 200
"""Cells on a page of the leaderboard."""
OPTIONS = 500
"""Values that a filter lists; with more the user writes the address."""
SOON_S, LATER_S = 3, 15
"""A page is asked for again after so many seconds: where a run is running, and where one may begin."""


def leaderboard(registry: Registry, query: Query) -> dict[str, Any]:
    """Cells that fit the filters, of each method's largest sample unless `n` says otherwise, best first."""
    known = registry.runs()
    rows = leaderboard_rows(registry)
    options = {column: _values(rows, column) for column in FILTERS}
    chosen = {column: query.text(column) for column in FILTERS}
    kept = [row for row in rows if all(not v or str(row[c]) == v for c, v in chosen.items())]
    if not chosen["n"]:
        kept = largest_samples(kept)
    runs = list(dict.fromkeys(row["run"] for row in kept))
    baselines = list(dict.fromkeys(row["method"] for row in rows if row["run"] == runs[0])) if len(runs) == 1 else []
    baseline = query.text("baseline") if query.text("baseline") in baselines else ""
    if baseline:
        keys = {(row["method"], row["shots"], row["n"]) for row in kept}
        sizes = sorted({row["n"] for row in kept})
        found = leaderboard_rows(registry, runs[0], baseline, n=sizes)
        kept = [row for row in found if (row["method"], row["shots"], row["n"]) in keys]
    sort = query.text("sort") or "-accuracy"
    if sort.removeprefix("-") == "delta" and not baseline:
        sort = "-accuracy"  # the address names a baseline that the filters have left out
    kept = sorted_rows(kept, sort, list(dict.fromkeys(row["method"] for row in rows)), bool(baseline))
    page = max(1, query.integer("page", 1) or 1)
    shown = kept[(page - 1) * ROWS : page * ROWS]
    state: dict[str, Any] = {k: v for k, v in {**chosen, "baseline": baseline}.items() if v}
    if query.text("sort"):
        state["sort"] = sort

    def turned(key: str) -> str:
        """Where the head of a column leads: to its order, and from there to the other direction."""
        falling = sort == key or (sort != f"-{key}" and key in FALLING)
        return link(**{**state, "sort": f"-{key}" if falling else key})

    ends = [end for row in shown for end in (row["ci_low"], row["ci_high"]) if end is not None]
    return {
        "rows": shown, "total": len(kept), "first": (page - 1) * ROWS + 1, "filters": FILTERS, "options": options,
        "chosen": chosen, "baseline": baseline, "baselines": baselines, "sort": sort,
        "orders": {key: turned(key) for key in SORTS}, "same": _same(shown), "scale": _scale(ends),
        "previous": link(**state, page=page - 1) if page > 1 else None,
        "following": link(**state, page=page + 1) if page * ROWS < len(kept) else None,
        "every": SOON_S if any(r["status"] == "running" for r in known) else LATER_S, "empty": not known,
    }  # fmt: skip


def runs(registry: Registry, query: Query) -> dict[str, Any]:
    """All runs, the last started first, with how far those are that run."""
    labels, now = registry.labels(), datetime.now(UTC)
    wanted = {key: query.text(key) for key in ("status", "tag", "sweep")}
    known = registry.runs()
    rows = []
    for run in known:
        own = labels.get(run["id"], {"note": "", "tags": []})
        if wanted["tag"] and wanted["tag"] not in own["tags"]:
            continue
        if any(wanted[key] and str(run[key]) != wanted[key] for key in ("status", "sweep")):
            continue
        at = _under_way(run, registry.stages(run["id"])) if run["status"] == "running" else None
        rows.append({**run, "tags": own["tags"], "mine": own["note"], "took": _took(run, now), "at": at})
    running = any(run["status"] == "running" for run in known)
    states = sorted({run["status"] for run in known})
    sweeps = sorted({run["sweep"] for run in known if run["sweep"]})
    tags = sorted({tag for own in labels.values() for tag in own["tags"]})
    return {
        "rows": rows, "wanted": wanted, "total": len(known), "every": SOON_S if running else LATER_S,
        "noted": any(row["mine"] or row["note"] or row["tags"] for row in rows),
        "options": {"status": states, "tag": tags, "sweep": sweeps},
    }  # fmt: skip


def run(registry: Registry, query: Query) -> dict[str, Any]:
    """One run: its stages with progress and time, its curves, its grid, its settings and what it ran on."""
    found = registry.resolve(query.text("run"))
    stages = registry.stages(found["id"])
    own = registry.labels().get(found["id"], {"note": "", "tags": []})
    planned = found["planned"] or [stage["name"] for stage in stages]
    there = {stage["name"] for stage in stages}
    return {
        "run": found, "tags": own["tags"], "mine": own["note"], "took": _took(found, datetime.now(UTC)),
        "stages": stages, "left": [name for name in planned if name not in there], "at": _under_way(found, stages),
        "curves": charts(registry.curve_rows(found["id"]), stages),
        "settings": as_yaml(found["recipe"] or {}), "used": found["parts"] or [],
        "about": _about(found), "packages": (found["environment"] or {}).get("packages") or {},
        "every": SOON_S if found["status"] == "running" else None, **_grid(registry, found, None),
    }  # fmt: skip


def grid(registry: Registry, query: Query) -> dict[str, Any]:
    """Accuracy and interval of each method at each number of shots, for one sample size."""
    found = registry.resolve(query.text("run"))
    about = _grid(registry, found, query.integer("n"))
    return {"run": found, "every": SOON_S if found["status"] == "running" else None, **about}


def _values(rows: Sequence[Row], column: str) -> list[Any]:
    found = list(dict.fromkeys(row[column] for row in rows if row[column] not in (None, "")))
    return (found if column in ("name", "method") else sorted(found))[:OPTIONS]


def _same(rows: Sequence[Row]) -> dict[str, Any]:
    """The columns in which all rows agree: said once, above the table."""
    found = {}
    for column in ("run", "dataset", "model", "seed", "sweep", "n"):
        values = {row[column] for row in rows}
        if len(values) == 1:
            found[column] = values.pop()
    return found


def _scale(ends: Sequence[float]) -> tuple[float, float]:
    """(low, width) of what intervals are drawn on."""
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    return low, (high - low) or 1.0


def _grid(registry: Registry, found: Row, n: int | None) -> dict[str, Any]:
    cells = registry.cells([found["id"]])
    sizes = sorted({cell["n"] for cell in cells})
    if n is not None and n not in sizes:
        raise RegistryError(
            f"run {found['name']} ({found['id']}) has no sample of {n}.", did_you_mean(str(n), map(str, sizes))
        )
    chosen = largest_samples(cells) if n is None else [cell for cell in cells if cell["n"] == n]
    of = {cell["n"] for cell in chosen}
    size = max(of) if len(of) == 1 else None  # logs of an imported run may be of different lengths
    here = {(cell["method"], cell["shots"]): cell for cell in chosen}
    methods = ordered_methods(found, (method for method, _ in here))
    shots = sorted({s for _, s in here})
    rivals = {s: [cell["accuracy"] for (m, t), cell in here.items() if t == s and m != CEILING] for s in shots}
    best = {s: max(found) for s, found in rivals.items() if found and max(found) > min(found)}
    published = found["source"] == "published"

    def entry(method: str, at: int) -> tuple[Row, str | None, bool] | None:
        if (cell := here.get((method, at))) is None:
            return None
        wrong = str(Outcome(method, at, False))
        to = None if published else link("runs", found["id"], "questions", where=wrong, n=cell["n"])
        return cell, to, method != CEILING and at in best and cell["accuracy"] >= best[at]

    ends = [end for cell in here.values() for end in (cell["ci_low"], cell["ci_high"]) if end is not None]
    return {
        "table": [(method, [entry(method, at) for at in shots]) for method in methods], "shots": shots,
        "sizes": sizes, "size": size, "scale": _scale(ends), "published": published,
        "trained": set(trained_methods(found, methods)) if found["source"] == "run" else set(),
        "pair": [] if published else default_pair(found, here),
    }  # fmt: skip


def _under_way(found: Row, stages: Iterable[Row]) -> dict[str, Any] | None:
    """How far a running run is: `done` of `total` stages, and the stage that it is at, with its progress."""
    if found["status"] != "running":
        return None
    known = list(stages)
    done = sum(stage["status"] == "done" for stage in known)
    current = next((stage for stage in known if stage["status"] == "running"), None)
    return {"done": done, "total": max(len(found["planned"] or ()), len(known)), "stage": current}


def _took(found: Row, now: datetime) -> float | None:
    """Seconds from its last start to its end, or to now."""
    if found["source"] != "run":
        return None
    end = datetime.fromisoformat(found["finished_at"]) if found["finished_at"] else now
    return max(0.0, (end - datetime.fromisoformat(found["started_at"])).total_seconds())


def _about(found: Row) -> dict[str, Any]:
    environment, git = found["environment"] or {}, found["git"] or {}
    commit = str(git.get("commit", ""))
    return {
        "dataset": found["dataset"], "model": found["model"], "sweep": found["sweep"],
        "seed": found["seed"] if found["source"] == "run" else None,
        "arm": ", ".join(f"{key} {value}" for key, value in (found["arm"] or {}).items()),
        "host": (found["host"] or "").partition(":")[0],
        "process": found["pid"] if found["status"] == "running" else None, "Python": environment.get("python"),
        "system": environment.get("system"), "CPUs": environment.get("cpus"),
        "commit": f"{commit[:12]}{', with changes' if git.get('dirty') else ''}" if commit else None,
        "fingerprint": found["fingerprint"], "dataset fingerprint": found["dataset_fingerprint"],
    }  # fmt: skip
