"""What a run is about, on one page: the primary comparison, and for every method what it gains and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from leverplus_core.errors import RegistryError
from leverplus_core.recipes.settings import ABLATED
from leverplus_core.registry.registry import Registry
from leverplus_core.report.methods import CEILING, Row, ordered_methods, trained_methods
from leverplus_core.report.pairing import Member, Pairing, common_cells, members, nested
from leverplus_core.report.primary import UNMARKED, Best, Endpoint, Found, best_baseline, difference, family
from leverplus_core.report.tables import (
    Block,
    Grid,
    Remark,
    Title,
    View,
    bracket,
    count,
    interval,
    percent,
    points,
    two_lines,
)
from leverplus_core.report.unchanged import unchanged_policies, unchanged_text, untrained_methods, untrained_text
from leverplus_core.statistics import accuracy_interval, share_closed

SEEDS = 3
"""Fewer seeds say little about the spread of training."""


@dataclass(frozen=True)
class Headline:
    """The primary endpoint of the seeded runs of one arm; accuracies and differences in units of accuracy.

    - name, runs (ids), seeds (number of runs); over (numbers of shots of the mean), n (questions);
    - method: the one that the endpoint is about, None where nothing was trained;
    - best: the baseline to beat (see `Best`), None where there is none;
    - rows: one per method, in the order of reports, see `headline_of`;
    - primary: the comparisons of the primary family, `method` minus `baseline`, with corrected intervals and marks;
    - missing: methods of the endpoint that were not evaluated;
    - asked: how many distinct runs have answered these evaluation questions; None where it is not known;
    - unchanged: the trainings that left a policy as it was, see `unchanged_policies`;
    - untrained: the trainings that had nothing to learn from, see `untrained_methods`.
    """

    name: str
    runs: list[str]
    seeds: int
    over: list[int]
    n: int
    method: str | None
    best: Best | None
    rows: list[Row]
    primary: list[Row]
    missing: list[str]
    asked: int | None
    unchanged: list[Row]
    untrained: list[Row]

    def data(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def headline(registry: Registry, runs: Sequence[str], name: str | None = None) -> Headline:
    """The headline of `runs` (ids, names or `latest`), the seeds of one arm.

    Raises RegistryError for an unknown run, one without results, a published table, or runs without a common method.
    """
    held = [members(registry, run) for run in runs]
    first = next(iter(held[0].values())).run
    if first["source"] == "published":
        raise RegistryError(f"{first['name']} is a published table: it has no predictions.", "Use `leverplus compare`.")
    common = [m for m in ordered_methods(first, held[0]) if all(m in there for there in held)]
    if not common:
        raise RegistryError(f"the runs of {name or first['name']} have no method in common.", "Run them to the end.")
    arm = {m: [there[m] for there in held] for m in common}
    return headline_of(registry, Pairing(registry), arm, name or str(first["name"]))


def headline_of(registry: Registry, pairing: Pairing, arm: Mapping[str, Sequence[Member]], name: str) -> Headline:
    """The headline of `arm`: method -> its seeded runs, in the order of reports.

    Keys of a row: method, role ("trained", "ablation", "baseline", or "ceiling" for the oracle), primary (whether the
    endpoint is about it), n, accuracy, ci_low, ci_high; baseline (the best, None in its own row), delta, delta_low,
    delta_high (95%), and for the primary method corrected_low, corrected_high, p_holm, mark and comparisons, which are
    None in all other rows: these are exploratory; share, share_low, share_high of the gap from the best baseline to the
    oracle (a lower bound of what can be reached; 95%, over questions), None where no gap is seen and in rows that were
    not trained; copied (share of answers equal to that of a demonstration shown); prompts (spent on the method, mean
    over the runs); the last two None where they were not recorded.
    A method that was not evaluated at the endpoint's numbers of shots has no row.
    """
    runs = [m.run for m in next(iter(arm.values()))]
    ids = [str(run["id"]) for run in runs]
    endpoint = Endpoint.of(runs[0], list(arm))
    about = arm.get(endpoint.method or "")
    over = _over(endpoint, arm, about)
    endpoint = Endpoint(over, endpoint.n, endpoint.method, endpoint.against)
    best = best_baseline(registry, ids, list(arm))
    floor = arm[best.name] if best else None
    size = endpoint.size([common_cells(held) for held in arm.values()])
    trained = trained_methods(runs[0], arm)
    costs, copied = _prompts(registry, ids), _copied(registry, ids, over, size)
    rows: list[tuple[Row, Found | None]] = []
    for method, held in arm.items():
        if (own := _accuracy(pairing, endpoint, held, size)) is None:
            continue
        role = "trained" if method in trained or method == "adaptive" else "baseline"
        role = "ceiling" if method == CEILING else "ablation" if ABLATED in method else role
        row = {"method": method, "role": role, "primary": held is about, **own}
        row |= _share(pairing, endpoint, floor, held, arm.get(CEILING), size) if role == "trained" else NO_SHARE
        row |= {"copied": copied.get(method), "prompts": costs.get(method)}
        versus = difference(pairing, endpoint, held, floor) if floor and best and method != best.name else None
        rows.append((row | {"baseline": best.name if versus and best else None}, versus))
    found = comparisons(pairing, endpoint, arm, best)
    corrected = family([(pair, True) for _, pair in found])
    primary = [
        {"method": endpoint.method, "baseline": other, **row} for (other, _), row in zip(found, corrected, strict=True)
    ]
    lead = next((row for row in primary if best and row["baseline"] == best.name), None)
    return Headline(
        name=name, runs=ids, seeds=len(ids), over=list(over), n=size, method=endpoint.method, best=best,
        rows=[_with_difference(row, versus, lead) for row, versus in rows],
        primary=primary,
        missing=[m for m in (*([endpoint.method] if endpoint.method else []), *endpoint.against) if m not in arm],
        asked=_asked(registry, runs[0]),
        unchanged=unchanged_policies(registry, ids),
        untrained=untrained_methods(registry, ids),
    )  # fmt: skip


def comparisons(
    pairing: Pairing, endpoint: Endpoint, arm: Mapping[str, Sequence[Member]], best: Best | None
) -> list[tuple[str, Found]]:
    """The comparisons that the endpoint is for, by what its method is compared with: the best baseline, then what the
    recipe names; those that were not evaluated are left out."""
    named = [best.name] if best and best.name != endpoint.method else []
    about, found = arm.get(endpoint.method or ""), list[tuple[str, Found]]()
    for other in dict.fromkeys([*named, *endpoint.against]):
        if about and other in arm:
            pair = difference(pairing, endpoint, about, arm[other])
            found += [(other, pair)] if pair is not None else []
    return found


def arm_rows(registry: Registry, runs: Sequence[str], name: str) -> list[Row]:
    """Rows as `leaderboard_rows` gives them for the seeds of one arm: the methods that all `runs` evaluated, each
    question's score being its mean over the runs and their spread part of the interval. `name` is the arm's; `run` is
    the ids, `seed` their number in words. Raises RegistryError for an unknown run, or one without results."""
    held = [members(registry, run) for run in runs]
    every = [next(iter(there.values())).run for there in held]
    first, pairing, rows = every[0], Pairing(registry), list[Row]()
    about = {
        "run": ", ".join(run["id"] for run in every), "name": name, "seed": f"{len(every)} seeds", "source": "run",
        **{key: first[key] for key in ("dataset", "model", "note", "sweep", "arm")}, "accuracy_text": None,
        "status": next((run["status"] for run in every if run["status"] != "done"), "done"),
    }  # fmt: skip
    for method in ordered_methods(first, held[0]):
        if not all(method in there for there in held):
            continue
        arm = [there[method] for there in held]
        for shots, sizes in sorted(common_cells(arm).items()):
            pairs = pairing.pairs(arm, [], shots, shots)
            for size, sample in nested(pairs, sizes) if pairs else ():
                own = accuracy_interval(sample.a, sample.images)
                ends = {"accuracy": own.mean, "ci_low": own.low, "ci_high": own.high}
                rows.append({**about, "method": method, "shots": shots, "n": size, "sample": None, **ends})
    return rows


NO_SHARE: Row = dict.fromkeys(("share", "share_low", "share_high"))


def _over(endpoint: Endpoint, arm: Mapping[str, Sequence[Member]], about: Sequence[Member] | None) -> tuple[int, ...]:
    """The numbers of shots of the mean: as set, else all at which the primary method, or any, was evaluated."""
    if endpoint.shots:
        return endpoint.shots
    some = [common_cells(about)] if about else [common_cells(held) for held in arm.values()]
    return tuple(sorted({shots for cells in some for shots in cells if shots})) or (0,)


def _accuracy(pairing: Pairing, endpoint: Endpoint, held: Sequence[Member], size: int) -> Row | None:
    side = endpoint.side(held)
    found = pairing.aligned([side]) if side else None
    if found is None or not (sample := found.sample(size)).n:
        return None
    own = accuracy_interval(sample.sides[0], sample.images)
    return {"n": sample.n, "accuracy": own.mean, "ci_low": own.low, "ci_high": own.high}


def _share(
    pairing: Pairing, endpoint: Endpoint, floor: Sequence[Member] | None, held: Sequence[Member],
    ceiling: Sequence[Member] | None, size: int,
) -> Row:  # fmt: skip
    sides = [endpoint.side(side) for side in (floor, held, ceiling) if side]
    known = [side for side in sides if side is not None]
    found = pairing.aligned(known) if len(known) == 3 else None
    if found is None or not (sample := found.sample(size)).n:
        return NO_SHARE
    bottom, own, top = sample.sides
    gap = share_closed(bottom, own, top, sample.images)
    share, low, high = (float(x) if math.isfinite(x) else None for x in (gap.share, gap.low, gap.high))
    return {"share": share, "share_low": low, "share_high": high}


def _with_difference(row: Row, versus: Found | None, lead: Row | None) -> Row:
    """The row with its difference to the best baseline, the primary method's with its correction and mark."""
    if versus is None:
        return row | dict.fromkeys(("delta", "delta_low", "delta_high")) | UNMARKED
    own = lead if row["primary"] and lead else UNMARKED
    kept = {key: versus[0][key] for key in ("delta", "delta_low", "delta_high")}
    return row | kept | {key: own[key] for key in UNMARKED}


# What the registry knows of cost and of the questions.


def _prompts(registry: Registry, ids: Sequence[str]) -> dict[str, float]:
    """method -> prompts spent on it, the mean over the runs that recorded it."""
    found: dict[str, list[int]] = {}
    for run_id in ids:
        for method, prompts in registry.method_prompts(run_id).items():
            if prompts is not None:
                found.setdefault(method, []).append(prompts)
    return {method: mean(counts) for method, counts in found.items()}


def _copied(registry: Registry, ids: Sequence[str], over: Sequence[int], size: int) -> dict[str, float]:
    """method -> share of its answers that repeat a demonstration's, mean over shots and runs; where all are known."""
    found: dict[str, list[float | None]] = {}
    for cell in registry.cells(ids, n=size):
        if cell["shots"] in (0, *over):
            found.setdefault(cell["method"], []).append(cell["copied"])
    known = {method: [share for share in shares if share is not None] for method, shares in found.items()}
    return {method: mean(shares) for method, shares in known.items() if shares and len(shares) == len(found[method])}


def _asked(registry: Registry, run: Mapping[str, Any]) -> int | None:
    """None for a run that was recorded before evaluations were."""
    split = (run["recipe"].get("evaluation") or {}).get("split", "validation")
    return registry.runs_that_asked(str(run["dataset_fingerprint"]), split) or None


# Views.


def headline_view(found: Headline) -> View:
    """The primary comparisons, a row per method, and what a reader must know, for 80 columns."""
    blocks: list[Block] = [
        Title(f"primary endpoint of {found.name}: {endpoint_text(found.over, found.n, found.seeds)}")
    ]
    if found.primary:
        lines = [
            [f"{row['method']} - {row['baseline']}{_is_best(row, found)}",
             f"{points(row['delta'])} {interval(row['corrected_low'], row['corrected_high'])}", row["mark"]]
            for row in found.primary
        ]  # fmt: skip
        blocks += [Grid(["", "difference in points", "mark"], lines, "wnm", gap=1), ""]
    best = f"minus\n{found.best.name}" if found.best else "difference"
    lines = [
        [two_lines(row["method"]), f"{percent(row['accuracy'])}\n{bracket(row['ci_low'], row['ci_high'])}",
         _difference(row), _gap(row), "-" if row["copied"] is None else f"{percent(row['copied'])}",
         "-" if row["prompts"] is None else count(round(row["prompts"]))]
        for row in found.rows
    ]  # fmt: skip
    blocks.append(Grid(["method", "accuracy", best, "gap closed", "copied", "prompts"], lines))
    return View([*blocks, *map(Remark, remarks(found))])


def endpoint_text(over: Sequence[int], n: int, seeds: int) -> str:
    """`mean over 1, 2, 3, 4 shots, n = 400, 3 seeds`."""
    return f"mean over {', '.join(map(str, over))} shots, n = {n}, {seeds} seed{'' if seeds == 1 else 's'}"


def _is_best(row: Row, found: Headline) -> str:
    return " (best baseline)" if found.best and found.best.source and row["baseline"] == found.best.name else ""


def _difference(row: Row) -> str:
    if row["delta"] is None:
        return "-"
    primary = row["corrected_low"] is not None
    low, high = (row["corrected_low"], row["corrected_high"]) if primary else (row["delta_low"], row["delta_high"])
    return f"{points(row['delta'])}\n{interval(low, high)}"


def _gap(row: Row) -> str:
    if row["share"] is None:
        return "-"
    return f"{percent(row['share'])}\n{bracket(row['share_low'], row['share_high'])}"


def remarks(found: Headline) -> list[str]:
    """What the table does not say by itself, a sentence each."""
    lines = ["in %, differences in points, paired by question, with 95% intervals in brackets"]
    if (many := len(found.primary)) > 1:
        lines.append(f"the {many} differences above are corrected for each other (Holm); the others are exploratory")
    elif many:
        lines.append("the difference above is the primary comparison; all others are exploratory and have no mark")
    if found.missing:
        lines.append(f"not evaluated, so not compared: {', '.join(found.missing)}")
    if any(row["share"] is not None for row in found.rows) and found.best:
        lines.append(f"gap closed: from {found.best.name} to the oracle, a lower bound of what can be reached")
    if any(row["copied"] is not None for row in found.rows):
        lines.append("copied: answers equal to that of a demonstration shown")
    lines += map(unchanged_text, found.unchanged)
    lines += [untrained_text(found.untrained)] if found.untrained else []
    return [*lines, best_text(found.best), seeds_text(found.seeds), *asked_texts(found)]


SOURCES = {
    "held_out": "held-out train questions",
    "validation_questions": "train questions, those that chose the epoch",
}
"""Where the best baseline was chosen, by `Best.source`; a cross-fitted run chooses on the other folds."""


def best_text(best: Best | None) -> str:
    """How the baseline to beat was found."""
    if best is None:
        return "no baseline was evaluated"
    if best.source is None:
        return f"no baseline was chosen on train questions: {best.name} stands in for the best"
    where = SOURCES.get(best.source, "questions of the other folds")
    other = f" (other seeds chose {', '.join(best.others)})" if best.others else ""
    return f"best baseline on {best.questions} {where}: {best.name}{other}"


def seeds_text(seeds: int) -> str:
    """What the number of seeds allows to conclude."""
    if seeds == 1:
        return "one seed: it says nothing about the spread of training (`leverplus run --seeds 3`)"
    few = f"; fewer than {SEEDS}, so their spread is hardly known" if seeds < SEEDS else ""
    return f"{seeds} seeds: the spread over seeds and over questions is part of the intervals{few}"


def asked_texts(found: Headline) -> list[str]:
    """How often these questions have been asked."""
    if found.asked is None:
        return []
    return [f"runs that have answered these evaluation questions so far: {found.asked}"]
