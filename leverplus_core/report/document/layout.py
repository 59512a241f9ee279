"""The order of a report: sections of paragraphs, tables and plots, in words; `render` draws them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib import metadata
from typing import Any, Literal

from leverplus_core.report.document.content import Content
from leverplus_core.report.document.i18n import Translator
from leverplus_core.report.document.plots import Plot, draw
from leverplus_core.report.document.summary import caveats, detectable, family, summary
from leverplus_core.report.headroom import share_text
from leverplus_core.report.methods import CEILING, FLOOR, NEIGHBORS, Row
from leverplus_core.report.published import exact_texts
from leverplus_core.report.tables import bracket, count, interval, percent, points

Kind = Literal["", "best", "better", "worse", "unseen"]
SYMBOLS: dict[str, tuple[str, Kind]] = {
    "better": ("▲", "better"), "worse": ("▼", "worse"), "no difference seen": ("○", "unseen"),
    "a better": ("▲", "better"), "b better": ("▼", "worse"),
}  # fmt: skip
WORD_OF = {"better": "better", "worse": "worse", "unseen": "no difference seen"}
BALANCED = ("questions", "candidates", "candidates_per_question", "positive_rate")


@dataclass(frozen=True)
class Cell:
    """`text`, and below it in small an interval (`note`) and a mark in words."""

    text: str
    note: str = ""
    mark: str = ""
    kind: Kind = ""


ABSENT = Cell("—")


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
class Details:
    """A table that is closed until a reader opens it; its caption is the title."""

    table: Table


@dataclass(frozen=True)
class Section:
    """`bullets` are sentences of equal rank."""

    id: str
    title: str
    paragraphs: tuple[str, ...] = ()
    bullets: tuple[str, ...] = ()
    blocks: tuple[Table | Plot | Details, ...] = ()


@dataclass(frozen=True)
class Document:
    """A whole report in one language."""

    language: str
    title: str
    sections: tuple[Section, ...]
    foot: str

    @property
    def tables(self) -> list[Table]:
        """All tables, in order."""
        blocks = [block for section in self.sections for block in section.blocks]
        return [b.table if isinstance(b, Details) else b for b in blocks if not isinstance(b, Plot)]

    @property
    def plots(self) -> list[Plot]:
        """All plots, in order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Plot)]


def lay_out(content: Content, say: Translator, plots: bool = True) -> Document:
    """The whole report, in reading order; without `plots`, tables alone."""
    drawn = {plot.id: plot for plot in draw(content, say)} if plots else {}
    made: tuple[tuple[str, Iterator[Table | Details], tuple[str, ...]], ...] = (
        ("configuration", _configuration(content, say), ()),
        ("data", _data(content, say), ()),
        ("grid", _grid(content, say), ("accuracy", "differences")),
        ("means", _means(content, say), ()),
        ("wins", _wins(content, say), ()),
        ("published", _published(content, say), ()),
        ("headroom", _headroom(content, say), ("headroom",)),
        ("training", iter(()), ("curves",)),
        ("cost", _cost(content, say), ("cost",)),
    )
    sections = [Section("summary", say("summary"), (), (*summary(content, say), *caveats(content, say)))]
    for name, tables, figures in made:
        blocks = (*tables, *(drawn[figure] for figure in figures if figure in drawn))
        if blocks:
            intro = (say("published_intro"),) if name == "published" else ()
            sections.append(Section(name, say(name), intro, blocks=blocks))
        elif name == "data" and content.own:
            sections.append(Section(name, say(name), (say("no_data"),)))
    names, baseline = content.contenders, content.baseline
    title = say("title_many", count=len(names), baseline=baseline)
    if len(names) <= 3:
        title = say("title", names=say.names(names), baseline=baseline)
    return Document(say.language, title, tuple(sections), say("made_by", version=metadata.version("leverplus")))


def _plain(*texts: str) -> tuple[Cell, ...]:
    return tuple(map(Cell, texts))


def _heads(say: Translator, *names: str) -> tuple[str, ...]:
    return tuple(map(say, names))


def _base(content: Content, say: Translator) -> str:
    return f"{content.baseline} ({say('baseline')})"


# What ran, and on what.


def _configuration(content: Content, say: Translator) -> Iterator[Table | Details]:
    own = [c for c in content.configurations if not c["published"]]
    if content.differing:
        rows = tuple(_plain(row["setting"], *map(_setting, row["values"])) for row in content.differing)
        yield Table("differing", say("differing"), (say("setting"), *(c["label"] for c in own)), rows, prose=True)
    heads = _heads(say, "arm", "run", "seed", "dataset", "model", "status", "commit")
    rows = tuple(_plain(c["label"], *_runs(c, say)) for c in content.configurations)
    yield Table("runs", say("runs"), heads, rows, prose=True)
    if content.common:
        rows = tuple(_plain(row["setting"], _setting(row["value"])) for row in content.common)
        title = say("common", count=len(rows))
        yield Details(Table("common", title, _heads(say, "setting", "value"), rows, prose=True))


def _runs(configuration: Row, say: Translator) -> Iterator[str]:
    runs, published = configuration["runs"], configuration["published"]
    yield say.listed(run["id"] for run in runs)
    yield ABSENT.text if published else say.listed(run["seed"] for run in runs)
    yield from (configuration[key] or say("unknown") for key in ("dataset", "model"))
    yield say("published_mark") if published else say.listed(dict.fromkeys(run["status"] for run in runs))
    yield say.listed(dict.fromkeys((run["commit"] or ABSENT.text)[:10] for run in runs))


def _setting(value: Any) -> str:
    return ABSENT.text if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _data(content: Content, say: Translator) -> Iterator[Table | Details]:
    if not content.data:
        return
    rows = tuple(
        _plain(say.names(r["labels"]), *(f"{_rate(k, r['before'])} → {_rate(k, r['after'])}" for k in BALANCED))
        for r in content.data
    )
    heads = _heads(say, "arm", *BALANCED)
    yield Table("balancing", say("balancing"), heads, rows, remarks=(say("before_after"),))
    rows = tuple(
        _plain(say.names(r["labels"]), why, count(number), f"{100 * number / r['before']['questions']:.1f}%")
        for r in content.data
        for why, number in r["shortfall"].items()
    )
    if rows:
        heads = (*_heads(say, "arm", "why", "questions"), "%")
        yield Details(Table("shortfall", say("shortfall"), heads, rows, stubs=2))


def _rate(name: str, values: dict[str, float]) -> str:
    if name == "positive_rate":
        return f"{100 * values[name]:.2f}%"
    return f"{values[name]:,.2f}" if name == "candidates_per_question" else count(values[name])


# The grid.


def _by_cell(
    id: str, caption: str, columns: Sequence[str], rows: Sequence[Row], cell: Callable[[str, Row], Cell],
    remarks: Sequence[str], say: Translator, key: str = "arm", names: Sequence[str] = (),
) -> Table:  # fmt: skip
    """A row per sample size and number of shots, a column for each of `columns`, drawn from the row of that `key`."""
    at = {(row[key], row["n"], row["shots"]): row for row in rows}
    places = sorted({(row["n"], row["shots"]) for row in rows})
    lines = tuple(
        (*_plain(str(n), str(s)), *(cell(c, at[c, n, s]) if (c, n, s) in at else ABSENT for c in columns))
        for n, s in places
    )
    return Table(id, caption, (*_heads(say, "n", "shots"), *(names or columns)), lines, 2, tuple(remarks))


def _grid(content: Content, say: Translator) -> Iterator[Table]:
    if not content.grid:
        return
    compared = content.compared
    names, sizes = list(dict.fromkeys(row["arm"] for row in compared)), sorted({row["n"] for row in compared})
    places = {(row["n"], row["shots"]) for row in compared}
    left_out = max(row["left_out"] for row in content.grid)
    lost = [say("left_out", count=left_out)] if left_out else []
    uneven = any(len({row["questions"] for row in content.grid if row["n"] == n}) > 1 for n in sizes)

    def accuracy(_: str, row: Row) -> Cell:
        return Cell(
            percent(row["accuracy"]), bracket(row["ci_low"], row["ci_high"]), kind="best" if row["best"] else ""
        )

    yield _by_cell(
        "accuracy", say("accuracy_table"), (content.baseline, *names),
        [row for row in content.grid if (row["n"], row["shots"]) in places], accuracy,
        [say("accuracy_remark"), *([say("no_best")] if uneven else []), *lost], say,
        names=(_base(content, say), *names),
    )  # fmt: skip
    seen = say.listed(
        say("detectable_at", points=detectable([row for row in compared if row["n"] == n], say), n=n) for n in sizes
    )
    yield _by_cell(
        "differences", say("difference_table", baseline=content.baseline), names, compared,
        lambda _, row: _marked(points(row["delta"]), row, row["mark"], say),
        [family(content, say), say("detectable", list=seen), *lost], say,
    )  # fmt: skip


def _marked(text: str, row: Row, verdict: str, say: Translator) -> Cell:
    symbol, kind = SYMBOLS[verdict]
    ends = interval(row["corrected_low"], row["corrected_high"])
    return Cell(text, ends, f"{symbol} {say(WORD_OF[kind])}", kind)


def _means(content: Content, say: Translator) -> Iterator[Table]:
    """A row for each number of shots (sample size) and one for all, a column per contender."""
    for key, other, name in (("shots", "n", "by_shots"), ("n", "shots", "by_size")):
        rows = [row for row in content.totals if row[other] is None]
        if not rows:
            return
        names = list(dict.fromkeys(row["contender"] for row in rows))
        lines = []
        for value in (None, *sorted({row[key] for row in rows} - {None})):
            at = {row["contender"]: row for row in rows if row[key] == value}
            bases = {percent(row["baseline_accuracy"]) for row in at.values()}
            # Contenders may have been compared on different questions.
            base = Cell(bases.pop()) if len(bases) == 1 else ABSENT
            lines.append(
                (Cell(say("all") if value is None else str(value)), base, *(_total(at.get(name)) for name in names))
            )
        remarks = (say(f"{name}_remark"), *((say("marks_remark"),) if key == "shots" else ()))
        yield Table(name, say(name), (say(key), _base(content, say), *names), tuple(lines), remarks=remarks)


def _total(row: Row | None) -> Cell:
    if row is None:
        return ABSENT
    marks = f"▲ {row['better']} ○ {row['unseen']} ▼ {row['worse']}"
    return Cell(percent(row["accuracy"]), points(row["delta"]), marks)


def _wins(content: Content, say: Translator) -> Iterator[Table]:
    if not content.compared:
        return
    largest = max(row["n"] for row in content.compared)
    at = {(row["arm"], row["shots"]): row for row in content.compared if row["n"] == largest}
    shots = sorted({s for _, s in at})
    rows = tuple(
        (Cell(name), *(_tally(at[name, s]) if (name, s) in at else ABSENT for s in shots))
        for name in dict.fromkeys(name for name, _ in at)
    )
    yield Table("wins", say("wins_table", n=largest), (say("arm"), *map(say.shots, shots)), rows)
    counts = ("cells", "better", "unseen", "worse", "above", "below", "level")
    heads = _heads(say, "arm", "cells", "better", "no difference seen", "worse", "wins_on", "losses_on", "ties_on")
    overall = [row for row in content.totals if row["shots"] is None and row["n"] is None]
    rows = tuple(_plain(row["contender"], *(str(row[name]) for name in counts)) for row in overall)
    yield Table("tallies", say("tallies_table"), heads, rows, remarks=(say("tallies_remark"),))


def _tally(row: Row) -> Cell:
    return Cell(f"{row['wins']} / {row['losses']} / {row['ties']}")


# Published tables: exact decimals.


def _published(content: Content, say: Translator) -> Iterator[Table]:
    for number, rows in enumerate(content.unpaired, 1):
        cells = [row for row in rows if row["verdict"]]
        names = list(dict.fromkeys(row["a_name"] for row in rows))
        most: dict[tuple[int, int], Decimal] = {}
        for row in cells:
            place = row["n"], row["shots"]
            most[place] = max(most.get(place, Decimal(0)), Decimal(row["a_text"]), Decimal(row["b_text"]))
        # The baseline's number stands in every row; equal decimals share the mark.
        base = [row | {"a_name": None, "a_text": row["b_text"]} for row in cells]

        def printed(_: str, row: Row, most: dict[tuple[int, int], Decimal] = most) -> Cell:
            best = Decimal(row["a_text"]) == most[row["n"], row["shots"]]
            return Cell(exact_texts(row)[0], kind="best" if best else "")

        yield _by_cell(
            f"printed-{number}", say("printed_table"), (None, *names), [*base, *cells], printed,  # type: ignore[arg-type]
            [say("printed_remark")], say, "a_name", (_base(content, say), *names),
        )  # fmt: skip
        yield _by_cell(
            f"unpaired-{number}", say("unpaired_table", baseline=content.baseline), names, cells,
            lambda _, row: _marked(exact_texts(row)[2], row, row["verdict"], say),
            [say("unpaired_family", count=cells[0]["comparisons"])], say, "a_name",
        )  # fmt: skip
        heads = _heads(say, "arm", "over", "cells", "mean", "baseline", "difference", "above", "below", "level")
        means = tuple(
            _plain(row["a_name"], _over(row, say), str(row["cells"]), *exact_texts(row),
                   *(str(row[key]) for key in ("wins", "losses", "ties")))
            for row in rows if not row["verdict"]
        )  # fmt: skip
        yield Table(f"means-{number}", say("means_table"), heads, means, stubs=2)


def _over(row: Row, say: Translator) -> str:
    if row["shots"] is not None:
        return say.shots(row["shots"])
    return say("all_cells") if row["n"] is None else f"n = {row['n']}"


# Headroom and cost.


def _headroom(content: Content, say: Translator) -> Iterator[Table]:
    if not content.headroom:
        return
    heads = (*_heads(say, "arm", "shots", "n"), FLOOR, NEIGHBORS, say("accuracy"), CEILING, say("share"))
    rows = []
    for row in content.headroom:
        means = [ABSENT.text if row[k] is None else percent(row[k]) for k in (FLOOR, NEIGHBORS, "accuracy", CEILING)]
        share, _, ends = share_text(row).partition(" ")
        last = Cell(share, ends) if share else Cell(say("no_gap"))
        rows.append((*_plain(row["contender"], str(row["shots"]), str(row["n"]), *means), last))
    yield Table("headroom", say("headroom_table"), heads, tuple(rows), stubs=2, remarks=(say("headroom_remark"),))


def _cost(content: Content, say: Translator) -> Iterator[Table]:
    if not content.cost:
        return
    rows = tuple(
        _plain(row["stage"], str(row["results"]), _known(row["seconds"], ",.1f"), _known(row["prompts"], ",.0f"))
        for row in content.cost
    )
    heads = _heads(say, "stage", "results", "seconds", "prompts")
    yield Table("cost", say("cost_table"), heads, rows, remarks=(say("cost_remark"),))


def _known(value: float | None, form: str) -> str:
    return ABSENT.text if value is None else f"{value:{form}}"
