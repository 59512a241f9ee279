"""The order of a report: sections of paragraphs, tables and pictures, in words; how they are drawn is for the page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib import metadata
from typing import Any, Literal

from leverplus_core.report.document.content import Content
from leverplus_core.report.document.language import Words
from leverplus_core.report.document.pictures import Picture, draw
from leverplus_core.report.document.summary import caveats, count, detectable, interval, points, share_interval, summary
from leverplus_core.report.leaderboard import percent
from leverplus_core.report.pairing import Row
from leverplus_core.report.published import exact_texts

Kind = Literal["", "best", "better", "worse", "unseen"]
SYMBOLS: dict[str, tuple[str, Kind]] = {
    "better": ("▲", "better"), "worse": ("▼", "worse"), "no difference seen": ("○", "unseen"),
    "a better": ("▲", "better"), "b better": ("▼", "worse"),
}  # fmt: skip
WORD_OF = {"better": "better", "worse": "worse", "unseen": "no difference seen"}
ABSENT = "—"


@dataclass(frozen=True)
class Cell:
    """`text`, and below it what is small: an interval, and a mark in words."""

    text: str
    note: str = ""
    mark: str = ""
    kind: Kind = ""


@dataclass(frozen=True)
class Table:
    """The first `stubs` columns are heads of their rows; columns from there on are numbers, unless `prose`."""

    id: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    stubs: int = 1
    remarks: tuple[str, ...] = ()
    prose: bool = False


@dataclass(frozen=True)
class Fold:
    """What is shut until a reader opens it."""

    title: str
    table: Table


@dataclass(frozen=True)
class Section:
    """`bullets` are sentences of equal rank."""

    id: str
    title: str
    paragraphs: tuple[str, ...] = ()
    bullets: tuple[str, ...] = ()
    blocks: tuple[Table | Picture | Fold, ...] = ()


@dataclass(frozen=True)
class Document:
    language: str
    title: str
    sections: tuple[Section, ...]
    foot: str

    @property
    def tables(self) -> list[Table]:
        blocks = [block for section in self.sections for block in section.blocks]
        return [b.table if isinstance(b, Fold) else b for b in blocks if not isinstance(b, Picture)]

    @property
    def pictures(self) -> list[Picture]:
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]


def lay_out(content: Content, words: Words, pictures: bool = True) -> Document:
    """The whole report, in the order in which it is read; without `pictures`, tables alone."""
    drawn = {picture.id: picture for picture in draw(content, words)} if pictures else {}

    def shown(*names: str) -> list[Picture]:
        return [drawn[name] for name in names if name in drawn]

    made = [
        Section("summary", words("summary"), (), (*summary(content, words), *caveats(content, words))),
        Section("configuration", words("configuration"), blocks=tuple(_configuration(content, words))),
        _data(content, words),
        Section("grid", words("grid"), blocks=(*_grid(content, words), *shown("accuracy", "differences"))),
        Section("means", words("means"), blocks=(*_totals(content, words, "shots"), *_totals(content, words, "n"))),
        Section("wins", words("wins"), blocks=tuple(_wins(content, words))),
        Section("published", words("published"), (words("published_intro"),), (), tuple(_published(content, words))),
        Section("headroom", words("headroom"), blocks=(*_headroom(content, words), *shown("headroom"))),
        Section("training", words("training"), blocks=tuple(shown("curves"))),
        Section("cost", words("cost"), blocks=(*_cost(content, words), *shown("cost"))),
    ]
    version = metadata.version("leverplus")
    sections = tuple(s for s in made if s.blocks or s.bullets or (s.id == "data" and s.paragraphs))
    return Document(words.language, _title(content, words), sections, words("made_by", version=version))


def _title(content: Content, words: Words) -> str:
    if len(content.sides) <= 3:
        return words("title", sides=words.names(content.sides), baseline=content.baseline)
    return words("title_many", count=len(content.sides), baseline=content.baseline)


def _plain(*texts: str) -> tuple[Cell, ...]:
    return tuple(Cell(text) for text in texts)


# What ran, and on what.


def _configuration(content: Content, words: Words) -> Iterator[Table | Fold]:
    own = [c for c in content.configurations if not c["published"]]
    if content.differing:
        heads = (words("setting"), *(c["label"] for c in own))
        rows = tuple(_plain(row["setting"], *map(_setting, row["values"])) for row in content.differing)
        yield Table("differing", words("differing"), heads, rows, prose=True)
    columns = ("arm", "run", "seed", "dataset", "model", "status", "commit")
    rows = tuple(_plain(c["label"], *_runs(c, words)) for c in content.configurations)
    yield Table("runs", words("runs"), tuple(words(name) for name in columns), rows, prose=True)
    if content.common:
        shared = tuple(_plain(row["setting"], _setting(row["value"])) for row in content.common)
        title = words("common", count=len(shared))
        yield Fold(title, Table("common", title, (words("setting"), words("value")), shared, prose=True))


def _runs(configuration: Row, words: Words) -> Iterator[str]:
    runs, published = configuration["runs"], configuration["published"]
    yield words.listed(run["id"] for run in runs)
    yield ABSENT if published else words.listed(run["seed"] for run in runs)
    yield from (configuration[key] or words("unknown") for key in ("dataset", "model"))
    yield words("published_mark") if published else words.listed(dict.fromkeys(run["status"] for run in runs))
    yield words.listed(dict.fromkeys((run["commit"] or ABSENT)[:10] for run in runs))


def _setting(value: Any) -> str:
    return ABSENT if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


BALANCED = ("questions", "candidates", "candidates_per_question", "positive_rate")


def _data(content: Content, words: Words) -> Section:
    title = words("data")
    if not content.data:
        return Section("data", title, (words("no_data"),) if content.own else ())
    heads = (words("arm"), *(words(name) for name in BALANCED))
    rows = tuple(
        (
            Cell(words.names(row["labels"])),
            *(Cell(f"{_fact(name, row['before'])} → {_fact(name, row['after'])}") for name in BALANCED),
        )
        for row in content.data
    )
    blocks: list[Table | Picture | Fold] = [
        Table("balancing", words("balancing"), heads, rows, remarks=(words("before_after"),))
    ]
    shortfall = tuple(
        _plain(words.names(row["labels"]), why, count(number), f"{100 * number / row['before']['questions']:.1f}%")
        for row in content.data
        for why, number in row["unmet"].items()
    )
    if shortfall:
        unmet_heads = (words("arm"), words("why"), words("questions"), "%")
        blocks.append(Fold(words("unmet"), Table("unmet", words("unmet"), unmet_heads, shortfall, stubs=2)))
    return Section("data", title, blocks=tuple(blocks))


def _fact(name: str, metadata: dict[str, float]) -> str:
    value = metadata[name]
    if name == "positive_rate":
        return f"{100 * value:.2f}%"
    return f"{value:,.2f}" if name == "candidates_per_question" else count(value)


# The grid.


def _grid(content: Content, words: Words) -> Iterator[Table]:
    if not content.grid:
        return
    compared = [row for row in content.grid if row["baseline"] is not None]
    places = sorted({(row["n"], row["shots"]) for row in compared})
    sides = list(dict.fromkeys(row["arm"] for row in compared))
    at = {(row["arm"], row["n"], row["shots"]): row for row in content.grid}
    base = content.baseline

    def accuracy(side: str, n: int, shots: int) -> Cell:
        row = at.get((side, n, shots))
        if row is None:
            return Cell(ABSENT)
        note = f"[{percent(row['ci_low'])}, {percent(row['ci_high'])}]"
        return Cell(percent(row["accuracy"]), note, kind="best" if row["best"] else "")

    def difference(side: str, n: int, shots: int) -> Cell:
        row = at.get((side, n, shots))
        return Cell(ABSENT) if row is None else _marked(points(row["delta"]), row, row["mark"], words)

    remarks = [words("accuracy_remark")]
    if any(len({row["questions"] for row in content.grid if row["n"] == n}) > 1 for n, _ in places):
        remarks.append(words("no_best"))
    left_out = max(row["left_out"] for row in content.grid)
    lost = [words("left_out", count=left_out)] if left_out else []
    where = (words("n"), words("shots"))
    yield Table(
        "accuracy",
        words("accuracy_table"),
        (*where, f"{base} ({words('baseline')})", *sides),
        tuple((*_plain(str(n), str(s)), *(accuracy(side, n, s) for side in (base, *sides))) for n, s in places),
        stubs=2,
        remarks=(*remarks, *lost),
    )
    count_ = content.grid[0]["comparisons"]
    by_size = [(n, [row for row in compared if row["n"] == n]) for n in sorted({n for n, _ in places})]
    seen = words.listed(words("detectable_at", points=detectable(rows, words), n=n) for n, rows in by_size)
    yield Table(
        "differences",
        words("difference_table", baseline=base),
        (*where, *sides),
        tuple((*_plain(str(n), str(s)), *(difference(side, n, s) for side in sides)) for n, s in places),
        stubs=2,
        remarks=(
            words("family_one") if count_ == 1 else words("family", count=count_),
            words("detectable", list=seen),
            *lost,
        ),
    )


def _marked(text: str, row: Row, verdict: str, words: Words) -> Cell:
    symbol, kind = SYMBOLS[verdict]
    ends = interval(row["corrected_low"], row["corrected_high"])
    return Cell(text, ends, f"{symbol} {words(WORD_OF[kind])}", kind)


def _totals(content: Content, words: Words, key: str) -> Iterator[Table]:
    """A row for each number of shots (sample size) and one for all, a column a side."""
    rows = [row for row in content.totals if row["shots" if key == "n" else "n"] is None]
    if not rows:
        return
    sides = list(dict.fromkeys(row["side"] for row in rows))
    at = {(row["side"], row[key]): row for row in rows}
    values = sorted({row[key] for row in rows if row[key] is not None})

    def cells(value: int | None) -> Iterator[Cell]:
        there = [at[side, value] for side in sides if (side, value) in at]
        means = {percent(row["baseline_accuracy"]) for row in there}
        yield Cell(words("all") if value is None else str(value))
        yield Cell(means.pop() if len(means) == 1 else ABSENT)  # sides may have been compared on other questions
        for side in sides:
            row = at.get((side, value))
            marks = f"▲ {row['better']} ○ {row['unseen']} ▼ {row['worse']}" if row else ""
            yield Cell(percent(row["accuracy"]), points(row["delta"]), marks) if row else Cell(ABSENT)

    name = "by_shots" if key == "shots" else "by_size"
    yield Table(
        name,
        words(name),
        (words(key), f"{content.baseline} ({words('baseline')})", *sides),
        tuple(tuple(cells(value)) for value in (None, *values)),
        remarks=(words(f"{name}_remark"), *((words("marks_remark"),) if key == "shots" else ())),
    )


def _wins(content: Content, words: Words) -> Iterator[Table]:
    compared = [row for row in content.grid if row["baseline"] is not None]
    if not compared:
        return
    largest = max(row["n"] for row in compared)
    at = {(row["arm"], row["shots"]): row for row in compared if row["n"] == largest}
    shots = sorted({s for _, s in at})

    def tally(side: str, s: int) -> Cell:
        row = at.get((side, s))
        return Cell(f"{row['wins']} / {row['losses']} / {row['ties']}" if row else ABSENT)

    yield Table(
        "wins",
        words("wins_table", n=largest),
        (words("arm"), *(words.shots(s) for s in shots)),
        tuple((Cell(side), *(tally(side, s) for s in shots)) for side in dict.fromkeys(side for side, _ in at)),
    )
    overall = [row for row in content.totals if row["shots"] is None and row["n"] is None]
    counts = ("cells", "better", "unseen", "worse", "above", "below", "level")
    heads = ("cells", "better", "no difference seen", "worse", "wins_on", "losses_on", "ties_on")
    yield Table(
        "tallies",
        words("tallies_table"),
        (words("arm"), *(words(name) for name in heads)),
        tuple((Cell(row["side"]), *(Cell(str(row[name])) for name in counts)) for row in overall),
        remarks=(words("tallies_remark"),),
    )


# Published tables: exact decimals.


def _published(content: Content, words: Words) -> Iterator[Table]:
    for number, rows in enumerate(content.unpaired, 1):
        cells = [row for row in rows if row["verdict"]]
        sides = list(dict.fromkeys(row["a_name"] for row in rows))
        at = {(row["a_name"], row["n"], row["shots"]): row for row in cells}
        places = sorted({(row["n"], row["shots"]) for row in cells})
        where = (words("n"), words("shots"))
        yield Table(
            f"printed-{number}",
            words("printed_table"),
            (*where, f"{content.baseline} ({words('baseline')})", *sides),
            tuple((*_plain(str(n), str(s)), *_printed(at, sides, n, s)) for n, s in places),
            stubs=2,
            remarks=(words("printed_remark"),),
        )
        yield Table(
            f"unpaired-{number}",
            words("unpaired_table", baseline=content.baseline),
            (*where, *sides),
            tuple((*_plain(str(n), str(s)), *_unpaired(at, sides, n, s, words)) for n, s in places),
            stubs=2,
            remarks=(words("unpaired_family", count=cells[0]["comparisons"]),),
        )
        names = ("arm", "over", "cells", "mean", "baseline", "difference", "above", "below", "level")
        means = tuple(
            _plain(row["a_name"], _over(row, words), str(row["cells"]), *exact_texts(row), *_tally(row))
            for row in rows
            if not row["verdict"]
        )
        yield Table(f"means-{number}", words("means_table"), tuple(words(n) for n in names), means, stubs=2)


def _printed(at: dict[tuple[str, int, int], Row], sides: Sequence[str], n: int, shots: int) -> Iterator[Cell]:
    """The baseline's number, then each side's; equal decimals are equally best."""
    rows = [at.get((side, n, shots)) for side in sides]
    base = next(row for row in rows if row is not None)
    most = max(Decimal(text) for row in rows if row is not None for text in (row["a_text"], row["b_text"]))
    _, b, _ = exact_texts(base)
    yield Cell(b, kind="best" if Decimal(base["b_text"]) == most else "")
    for row in rows:
        if row is None:
            yield Cell(ABSENT)
        else:
            a, _, _ = exact_texts(row)
            yield Cell(a, kind="best" if Decimal(row["a_text"]) == most else "")


def _unpaired(
    at: dict[tuple[str, int, int], Row], sides: Sequence[str], n: int, shots: int, words: Words
) -> Iterator[Cell]:
    for side in sides:
        row = at.get((side, n, shots))
        yield Cell(ABSENT) if row is None else _marked(exact_texts(row)[2], row, row["verdict"], words)


def _over(row: Row, words: Words) -> str:
    if row["shots"] is not None:
        return words.shots(row["shots"])
    return words("all_cells") if row["n"] is None else f"n = {row['n']}"


def _tally(row: Row) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in ("wins", "losses", "ties"))


# Headroom and cost.


def _headroom(content: Content, words: Words) -> Iterator[Table]:
    if not content.headroom:
        return
    heads = (
        words("arm"),
        words("shots"),
        words("n"),
        "random",
        "text_knn",
        words("accuracy"),
        "oracle",
        words("share"),
    )
    rows = tuple(
        (
            *_plain(row["side"], str(row["shots"]), str(row["n"])),
            *_plain(
                *(ABSENT if row[k] is None else percent(row[k]) for k in ("random", "text_knn", "accuracy", "oracle"))
            ),
            Cell(words("no_gap")) if row["share"] is None else Cell(percent(row["share"]), share_interval(row)),
        )
        for row in content.headroom
    )
    yield Table("headroom", words("headroom_table"), heads, rows, stubs=2, remarks=(words("headroom_remark"),))


def _cost(content: Content, words: Words) -> Iterator[Table]:
    if not content.cost:
        return
    heads = tuple(words(name) for name in ("stage", "results", "seconds", "prompts"))
    rows = tuple(
        _plain(row["stage"], str(row["results"]), _known(row["seconds"], ",.1f"), _known(row["prompts"], ",.0f"))
        for row in content.cost
    )
    yield Table("cost", words("cost_table"), heads, rows, remarks=(words("cost_remark"),))


def _known(value: float | None, form: str) -> str:
    return ABSENT if value is None else f"{value:{form}}"
