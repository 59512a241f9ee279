"""What opens a report: its title, which runs it is about, and what they found, in one sentence and one picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Any

from leverplus_core.report.document.blocks import MARKS, Lead, Plot
from leverplus_core.report.document.content import Content
from leverplus_core.report.document.i18n import Translator
from leverplus_core.report.document.summary import compared
from leverplus_core.report.methods import CEILING, Row
from leverplus_core.report.tables import interval, percent, points

NAMED = 3
"""Runs, or methods in the title, that are named each; more of them are counted."""


def title(content: Content, say: Translator) -> str:
    """What is compared, by the name of the run where all of it is of one."""
    own = [c for c in content.configurations if not c["published"]]
    name = own[0]["label"] if len(own) == len(content.configurations) == 1 else ""
    names = content.contenders
    if name and len(names) <= NAMED:
        return say("title_named", name=name, names=say.names(names), baseline=content.baseline)
    if name:
        return say("title_run", name=name, count=len(names), baseline=content.baseline)
    if len(names) > NAMED:
        return say("title_many", count=len(names), baseline=content.baseline)
    return say("title", names=say.names(names), baseline=content.baseline)


def origin(content: Content, say: Translator) -> str:
    """The runs, when they started, on what, with which versions and seeds, on one line."""
    runs = [run for c in content.configurations for run in c["runs"]]
    own = [run for c in content.configurations if not c["published"] for run in c["runs"]]
    sweeps = dict.fromkeys(run["sweep"] for run in runs)
    if len(content.configurations) == 1 and len(runs) <= NAMED:
        who = say("runs_named", list=say.listed(run["id"] for run in runs))  # the title has its name
    elif len(runs) <= NAMED:
        who = say.listed(run["name"] if run["name"] == run["id"] else f"{run['name']} ({run['id']})" for run in runs)
    else:
        swept = len(sweeps) == 1 and runs[0]["sweep"]
        who = say("runs_of", count=len(runs), name=runs[0]["sweep"]) if swept else say("runs_many", count=len(runs))
    days = sorted({run["started_at"][:10] for run in own})
    seeds = sorted({run["seed"] for run in own})
    facts = [
        who,
        days[0] if len(days) == 1 else say("from_to", low=days[0], high=days[-1]) if days else "",
        say.listed(_distinct(_machine(run["environment"], say) for run in own)),
        say.listed(_distinct(one for run in own for one in _versions(run["environment"]))),
        (say("seed_list", list=say.listed(seeds)) if seeds else ""),
    ]
    return " · ".join(fact for fact in facts if fact)


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def _machine(environment: Row, say: Translator) -> str:
    system, cpus = environment.get("system"), environment.get("cpus")
    return say("machine", system=system, cpus=cpus) if system and cpus else str(system or "")


def _versions(environment: Row) -> Iterator[str]:
    packages = environment.get("packages") or {}
    known = {name: packages.get(name) for name in ("leverplus", "torch", "transformers")}
    yield from (f"{name} {version}" for name, version in known.items() if version not in (None, "absent"))
    yield from (f"Python {version}" for version in [environment.get("python")] if version)


# The finding.


def lead(content: Content, say: Translator, plot: Plot | None = None) -> Lead:
    """The primary comparison in one sentence: of several arms with their baseline, where there are several; of the
    method with the best baseline, where there is one; and what is compared, where nothing was."""
    arms = [row for row in content.primary if row["counts"]]
    rows = arms if len(content.headlines) > 1 and arms else (content.endpoints or arms)[:1]
    unfinished = _unfinished(content, say)
    if not rows:
        return Lead(compared(content, say), unfinished, plot=plot)
    first = rows[0]
    about = say(
        "lead_about", shots=say.over(first["over"]), n=first["questions"], seeds=say.seeds(first["seeds"]),
        corrected=say("lead_corrected", count=first["comparisons"]) if first["comparisons"] > 1 else "",
    )  # fmt: skip
    about = say("then", first=unfinished, second=about) if unfinished else about
    if len(rows) == 1:
        symbol, kind = MARKS[first["mark"]]
        return Lead(_one(first, content, say), about, symbol, kind, plot)
    marks = [row["mark"] for row in rows]
    values = {name: marks.count(mark) for name, mark in zip(("better", "worse", "unseen"), MARKS, strict=True)}
    sentence = say("lead_many", count=len(rows), baseline=content.baseline, **values)
    if better := [row for row in rows if row["mark"] == "better"]:
        most = max(better, key=lambda row: row["delta"])
        sentence = say("then", first=sentence, second=_one(most, content, say, "lead_most"))
    return Lead(sentence, about, plot=plot)


def _unfinished(content: Content, say: Translator) -> str:
    """Which runs are not complete, so that a finding of today may not be that of tomorrow; empty where all are."""
    runs = [run for c in content.configurations for run in c["runs"] if run["status"] != "done"]
    if len(runs) > NAMED:
        return say("unfinished_many", count=len(runs))
    told = [say("unfinished", **run) for run in runs]
    return reduce(lambda first, second: say("then", first=first, second=second), told) if told else ""


def _one(row: Row, content: Content, say: Translator, key: str = "") -> str:
    best = {head["best"]["name"] for head in content.headlines if head["best"] and head["best"]["source"]}
    baseline = row["baseline"]
    named = say("best_named", name=baseline) if best & {baseline, baseline.rpartition(" · ")[2]} else baseline
    key = key or {"better": "lead_better", "worse": "lead_worse"}.get(row["mark"], "lead_unseen")
    ours, theirs = percent(row["accuracy"]), percent(row["baseline_accuracy"])
    ends = interval(row["corrected_low"], row["corrected_high"])
    return say(
        key, name=row["arm"], baseline=named, accuracy=ours, other=theirs, delta=points(row["delta"]), interval=ends
    )


# Its picture.


def lead_rows(content: Content) -> list[Row]:
    """The primary accuracy of all that is in the report, of the best baseline and of the oracle, which are shown beside
    what is compared. Keys: label, role ("baseline", "arm", "beside" or "ceiling"), accuracy, ci_low, ci_high, mark
    (None without one), over and n."""
    rows = [
        {"label": row["arm"], "role": "baseline" if row["baseline"] is None else "arm", **_measured(row)}
        for row in content.primary
    ]
    if not rows:
        return []
    over, n, several = rows[0]["over"], rows[0]["n"], len(content.headlines) > 1
    known = {row["label"] for row in rows}
    beside: dict[str, Row] = {}
    for head in content.headlines:
        best = head["best"]["name"] if head["best"] else None
        for row in head["rows"]:
            wanted = row["method"] in (best, CEILING) and (head["over"], head["n"]) == (over, n)
            label = f"{head['label']} · {row['method']}" if several else row["method"]
            if wanted and not known & {label, row["method"]}:
                role = "ceiling" if row["method"] == CEILING else "beside"
                one = {"label": label, "role": role, **_measured(row | {"mark": None, "over": over})}
                # Arms of one pool have one oracle.
                same = [role, row["method"], *(round(one[key], 9) for key in ("accuracy", "ci_low", "ci_high"))]
                beside.setdefault(str(same), one | {"method": row["method"], "of": []})["of"].append(head["label"])
    everyone = len(content.headlines)
    extra = [one | {"label": one["method"] if len(one["of"]) == everyone else one["label"]} for one in beside.values()]
    return rows + sorted(extra, key=lambda row: row["role"] == "ceiling")


def _measured(row: Row) -> dict[str, Any]:
    return {key: row[key] for key in ("accuracy", "ci_low", "ci_high", "mark", "over", "n")}


def ceiling(found: Row, content: Content, say: Translator) -> str:
    """The name of an oracle: of which configurations, unless it is that of all."""
    labels: Sequence[str] = found["labels"]
    alone = len(content.ceilings) == 1
    return say("ceiling") if alone else say("ceiling_of", names=say.names(labels))
