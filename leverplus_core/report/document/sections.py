"""The tables of each section of a report, in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from leverplus_core.report.comparison import VERDICTS
from leverplus_core.report.document.blocks import MARKS, Cell, Table, table
from leverplus_core.report.document.content import Content
from leverplus_core.report.document.i18n import Translator
from leverplus_core.report.document.lead import ceiling
from leverplus_core.report.document.summary import detectable, family
from leverplus_core.report.headroom import gap_texts, share_text
from leverplus_core.report.methods import CEILING, FLOOR, Row
from leverplus_core.report.published import exact_texts, mean_texts
from leverplus_core.report.tables import bracket, count, interval, percent, points

MARK_OF_VERDICT = {verdict: mark for mark, verdict in VERDICTS.items()}
ABSENT = "—"
BALANCED = ("questions", "candidates", "candidates_per_question", "positive_rate")


def _base(content: Content, say: Translator) -> str:
    return say("cell", name=content.baseline, shots=say("baseline"))


# The primary endpoint.


def _primary(content: Content, say: Translator) -> Iterator[Table]:
    if content.endpoints:
        rows = [
            (f"{row['arm']} - {row['baseline']}", _marked(points(row["delta"]), row, row["mark"], say), _closed(row),
             str(row["seeds"]), str(row["questions"]), say.listed(row["over"]))
            for row in content.endpoints
        ]  # fmt: skip
        heads = map(say, ("comparison", "difference", "share_percent", "seeds_head", "n", "shots"))
        planned = not all(one["imported"] for one in content.configurations)
        fixed = say("endpoints_recipe" if planned else "endpoints_imported")
        remarks = [say("endpoints_remark", fixed=fixed), _corrected(content.endpoints, say)]
        yield table("endpoints", say("endpoints_table"), heads, rows, remarks)
    lines = [
        (_base(content, say) if row["baseline"] is None else row["arm"], _with_interval(row), _against(row, say),
         ABSENT if row["copied"] is None else percent(row["copied"]), _known(row["prompts"], ",.0f"), str(row["seeds"]))
        for row in content.primary
    ]  # fmt: skip
    first, counted = content.primary[-1], [row for row in content.primary if row["counts"]]
    caption = say("primary_table", shots=say.over(first["over"]), n=first["n"], baseline=content.baseline)
    heads = map(say, ("arm", "accuracy", "difference", "copied", "prompts", "seeds_head"))
    remarks = [*([_corrected(counted, say)] if counted else []), say("exploratory_remark"), say("copied_remark")]
    yield table("primary", caption, heads, lines, remarks)


def _with_interval(row: Row) -> Cell:
    return Cell(percent(row["accuracy"]), bracket(row["ci_low"], row["ci_high"]))


def _closed(row: Row) -> Cell:
    return Cell(percent(row["share"]), bracket(row["share_low"], row["share_high"])) if row["share"] else Cell(ABSENT)


def _against(row: Row, say: Translator) -> Cell:
    if row["baseline"] is None:
        return Cell(ABSENT)
    if row["counts"]:
        return _marked(points(row["delta"]), row, row["mark"], say)
    return Cell(points(row["delta"]), interval(row["delta_low"], row["delta_high"]), say("exploratory"))


def _corrected(rows: Sequence[Row], say: Translator) -> str:
    many = rows[0]["comparisons"]
    return say("primary_one") if many == 1 else say("primary_many", count=many)


def _spent(content: Content, say: Translator) -> Iterator[Table]:
    rows = [
        (row["label"], count(round(row["prompts"])), _with_interval(row))
        for row in sorted(content.spent, key=lambda row: (row["prompts"], row["accuracy"]))
    ]  # fmt: skip
    yield table("spent", say("spent_table"), map(say, ("arm", "prompts", "accuracy")), rows, [say("spent_remark")])


# What ran, and on what.


def _configuration(content: Content, say: Translator) -> Iterator[Table]:
    own = [c["label"] for c in content.configurations if not c["published"]]
    if content.differing:
        rows = [(row["setting"], *map(_setting, row["values"])) for row in content.differing]
        yield table("differing", say("differing"), (say("setting"), *own), rows, prose=True)
    heads = map(say, ("arm", "run", "seed", "dataset", "model", "status", "commit"))
    yield table("runs", say("runs"), heads, [_runs(c, say) for c in content.configurations], prose=True)
    if content.common:
        rows = [(row["setting"], _setting(row["value"])) for row in content.common]
        caption = say("common", count=len(rows))
        yield table("common", caption, map(say, ("setting", "value")), rows, prose=True, folded=True)


def _runs(configuration: Row, say: Translator) -> Iterator[str]:
    runs, published = configuration["runs"], configuration["published"]
    yield configuration["label"]
    yield say.listed(run["id"] for run in runs)
    yield ABSENT if published else say.listed(run["seed"] for run in runs)
    yield from (configuration[key] or say("unknown") for key in ("dataset", "model"))
    yield say("published_mark") if published else say.listed(dict.fromkeys(run["status"] for run in runs))
    yield say.listed(dict.fromkeys((run["commit"] or ABSENT)[:10] for run in runs))


def _setting(value: Any) -> str:
    return ABSENT if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _data(content: Content, say: Translator) -> Iterator[Table]:
    rows = [
        (say.names(r["labels"]), *(f"{_rate(k, r['before'])} → {_rate(k, r['after'])}" for k in BALANCED))
        for r in content.data
    ]
    yield table("balancing", say("balancing"), map(say, ("arm", *BALANCED)), rows, [say("before_after")])
    rows = [
        (say.names(r["labels"]), why, count(number), f"{100 * number / r['before']['questions']:.1f}%")
        for r in content.data
        for why, number in r["shortfall"].items()
    ]
    if rows:
        heads = (*map(say, ("arm", "why", "questions")), "%")
        yield table("shortfall", say("shortfall"), heads, rows, stubs=2, folded=True)


def _rate(name: str, values: dict[str, float]) -> str:
    if name == "positive_rate":
        return f"{100 * values[name]:.1f}%"
    return f"{values[name]:,.1f}" if name == "candidates_per_question" else count(values[name])


# The grid.


def _by_cell(
    id: str, caption: str, columns: Mapping[str, str], rows: Iterable[Row], key: str, cell: Callable[[Row], Cell],
    remarks: Iterable[str], say: Translator, marked: bool = False,
) -> Table:  # fmt: skip
    """A row per sample size and number of shots; `columns` are heads by their value of `key` in `rows`."""
    at = {(row["n"], row["shots"], row[key]): cell(row) for row in rows}
    places = sorted({(n, shots) for n, shots, _ in at})
    lines = [(str(n), str(s), *(at.get((n, s, column), ABSENT) for column in columns)) for n, s in places]
    heads = (say("n"), say("shots"), *columns.values())
    return table(id, caption, heads, lines, remarks, stubs=2, narrow=True, marked=marked)


def _grid(content: Content, say: Translator) -> Iterator[Table]:
    compared, baseline, names = content.compared, content.baseline, {name: name for name in content.own}
    sizes, places = sorted({row["n"] for row in compared}), {(row["n"], row["shots"]) for row in compared}
    left_out = max(row["left_out"] for row in content.grid)
    lost = [say("left_out", count=left_out)] if left_out else []
    uneven = any(len({row["questions"] for row in content.grid if row["n"] == n}) > 1 for n in sizes)
    ceilings = {f"\0{i}": ceiling(found, content, say) for i, found in enumerate(content.ceilings)}
    above = [row | {"arm": f"\0{i}", "best": False} for i, one in enumerate(content.ceilings) for row in one["cells"]]
    yield _by_cell(
        "accuracy", say("accuracy_table"), {baseline: _base(content, say), **names, **ceilings},
        [row for row in (*content.grid, *above) if (row["n"], row["shots"]) in places], "arm", _accuracy,
        [say("accuracy_remark"), *([say("ceiling_remark")] if ceilings else []),
         *([say("no_best")] if uneven else []), *lost], say,
    )  # fmt: skip
    seen = say.listed(
        say("detectable_at", points=detectable([row for row in compared if row["n"] == n], say), n=n) for n in sizes
    )
    yield _by_cell(
        "differences", say("difference_table", baseline=baseline), names, compared, "arm",
        lambda row: _marked(points(row["delta"]), row, row["mark"], say),
        [say("symbols"), family(content, say), say("detectable", list=seen), *lost], say, marked=True,
    )  # fmt: skip


def _accuracy(row: Row) -> Cell:
    return replace(_with_interval(row), kind="best" if row["best"] else "")


def _marked(text: str, row: Row, mark: str, say: Translator) -> Cell:
    symbol, kind = MARKS[mark]
    return Cell(text, interval(row["corrected_low"], row["corrected_high"]), f"{symbol} {say(mark)}", kind)


def _means(content: Content, say: Translator) -> Iterator[Table]:
    """A row for each number of shots (sample size) and one for all, a column per contender."""
    for key, other, name in (("shots", "n", "by_shots"), ("n", "shots", "by_size")):
        at = {(row[key], row["contender"]): row for row in content.totals if row[other] is None}
        lines: list[list[Cell | str]] = []
        for value in (None, *sorted({value for value, _ in at} - {None})):
            rows = [at.get((value, contender)) for contender in content.own]
            # Contenders may have been compared on different questions.
            bases = {percent(row["baseline_accuracy"]) for row in rows if row}
            base = bases.pop() if len(bases) == 1 else ABSENT
            lines.append([say("all") if value is None else str(value), base, *map(_total, rows)])
        remarks = (say(f"{name}_remark"), *((say("marks_remark"),) if key == "shots" else ()))
        yield table(name, say(name), (say(key), _base(content, say), *content.own), lines, remarks)


def _total(row: Row | None) -> Cell | str:
    if row is None:
        return ABSENT
    marks = f"▲ {row['better']} ○ {row['unseen']} ▼ {row['worse']}"
    return Cell(percent(row["accuracy"]), points(row["delta"]), marks)


def _wins(content: Content, say: Translator) -> Iterator[Table]:
    rows, n = content.largest
    tallies = {(r["arm"], r["shots"]): f"{r['wins']} / {r['losses']} / {r['ties']}" for r in rows}
    shots = sorted({s for _, s in tallies})
    names = dict.fromkeys(name for name, _ in tallies)
    lines = [(name, *(tallies.get((name, s), ABSENT) for s in shots)) for name in names]
    yield table("wins", say("wins_table", n=n), (say("arm"), *map(say.shots, shots)), lines)
    counts = ("cells", "better", "unseen", "worse", "above", "below", "level")
    heads = ("arm", "cells", "better", "no difference seen", "worse", "wins_on", "losses_on", "ties_on")
    overall = [row for row in content.totals if row["shots"] is None and row["n"] is None]
    lines = [(row["contender"], *(str(row[name]) for name in counts)) for row in overall]
    yield table("tallies", say("tallies_table"), map(say, heads), lines, [say("tallies_remark")])


# Published tables: exact decimals.


def _published(content: Content, say: Translator) -> Iterator[Table]:
    for number, rows in enumerate(content.unpaired, 1):
        cells = [row for row in rows if row["verdict"]]
        names = {row["a_name"]: row["a_name"] for row in rows}
        # The baseline's number stands in every row.
        every = [*({**row, "a_name": "", "a_text": row["b_text"]} for row in cells), *cells]
        yield _by_cell(
            f"printed-{number}", say("printed_table"), {"": _base(content, say), **names}, _with_highest(every),
            "a_name", lambda row: Cell(exact_texts(row)[0], kind="best" if row["highest"] else ""),
            [say("printed_remark")], say,
        )  # fmt: skip
        yield _by_cell(
            f"unpaired-{number}", say("unpaired_table", baseline=content.baseline), names, cells, "a_name",
            lambda row: _marked(exact_texts(row)[2], row, MARK_OF_VERDICT[row["verdict"]], say),
            [say("unpaired_family", count=cells[0]["comparisons"])], say,
        )  # fmt: skip
        heads = map(say, ("arm", "over", "cells", "mean", "baseline", "difference", "above", "below", "level"))
        means = [(row["a_name"], _over(row, say), *mean_texts(row)) for row in rows if not row["verdict"]]
        yield table(f"means-{number}", say("means_table"), heads, means, stubs=2)


def _with_highest(rows: Sequence[Row]) -> Iterator[Row]:
    """The rows with `highest`: whether no decimal of the same n and shots is above theirs."""
    for row in rows:
        rivals = (Decimal(r["a_text"]) for r in rows if (r["n"], r["shots"]) == (row["n"], row["shots"]))
        yield row | {"highest": Decimal(row["a_text"]) == max(rivals)}


def _over(row: Row, say: Translator) -> str:
    if row["shots"] is not None:
        return say.shots(row["shots"])
    return say("all_cells") if row["n"] is None else f"n = {row['n']}"


# Headroom and cost.


def _headroom(content: Content, say: Translator) -> Iterator[Table]:
    heads = (
        *map(say, ("arm", "shots", "n")), FLOOR, say("best_baseline"), say("accuracy"), CEILING, say("share"),
        say("share_random"),
    )  # fmt: skip
    rows = []
    for row in content.headroom:
        floor, base, *others = gap_texts(row, ABSENT)
        shares = (share_text(row, prefix).partition(" ") for prefix in ("", "random_"))
        last = [Cell(share or say("no_gap"), ends) for share, _, ends in shares]
        place = (row["contender"], str(row["shots"]), str(row["n"]))
        rows.append((*place, floor, Cell(base, row["baseline"]), *others, *last))
    yield table("headroom", say("headroom_table"), heads, rows, [say("headroom_remark")], stubs=2)


def _cost(content: Content, say: Translator) -> Iterator[Table]:
    rows = [
        (row["stage"], str(row["results"]), _known(row["seconds"], ",.1f"), _known(row["prompts"], ",.0f"))
        for row in content.cost
    ]
    heads = map(say, ("stage", "results", "seconds", "prompts"))
    yield table("cost", say("cost_table"), heads, rows, [say("cost_remark")])


def _known(value: float | None, form: str) -> str:
    return ABSENT if value is None else f"{value:{form}}"


TABLES: Mapping[str, Callable[[Content, Translator], Iterator[Table]]] = {
    "primary": _primary, "spent": _spent, "configuration": _configuration, "data": _data, "grid": _grid,
    "means": _means, "wins": _wins, "published": _published, "headroom": _headroom, "cost": _cost,
}  # fmt: skip
"""section -> its tables"""
