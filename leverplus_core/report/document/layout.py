"""The order of a report: what it found, the picture of that, the conclusions, and then all it rests on, folded."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from leverplus_core.report.document.blocks import Document, Plot, Section, Table
from leverplus_core.report.document.content import Content
from leverplus_core.report.document.i18n import Translator
from leverplus_core.report.document.lead import lead, origin, title
from leverplus_core.report.document.plots import draw
from leverplus_core.report.document.sections import TABLES
from leverplus_core.report.document.summary import compared, conclusions


def lay_out(content: Content, say: Translator, plots: bool = True) -> Document:
    """The whole report, in reading order; without `plots`, tables alone. A section without data is left out."""
    drawn = {plot.id: plot for plot in draw(content, say)} if plots else {}
    first = drawn.pop("lead", None) or drawn.pop("accuracy", None)
    # name, its data, its plots
    made: tuple[tuple[str, list[Any], tuple[str, ...]], ...] = (
        ("primary", content.primary, ()),
        ("grid", content.grid, ("accuracy", "differences")),
        ("headroom", content.headroom, ("headroom",)),
        ("spent", content.spent, ("spent",)),
        ("means", content.grid, ()),
        ("wins", content.grid, ()),
        ("published", content.unpaired, ()),
        ("configuration", content.configurations, ()),
        ("data", content.data, ()),
        ("training", content.curves, ("curves",)),
        ("cost", content.cost, ("cost",)),
    )
    opening, what = lead(content, say, first), compared(content, say)
    # Where nothing can be concluded, what is compared opens the report, and is not said twice.
    paragraphs = () if opening.sentence == what else (what,)
    sections = [Section("summary", say("summary"), paragraphs, tuple(conclusions(content, say)))]
    for name, data, figures in made:
        blocks: list[Table | Plot] = list(TABLES[name](content, say)) if data and name in TABLES else []
        shown = [drawn[figure] for figure in figures if figure in drawn]
        folded = name != "primary"
        if blocks or shown:
            # In what a reader opens, the picture stands before the numbers.
            intro = (say("published_intro"),) if name == "published" else ()
            sections.append(Section(name, say(name), intro, blocks=(*shown, *blocks), folded=folded))
        elif name == "data" and content.own:
            sections.append(Section(name, say(name), (say("no_data"),), folded=folded))
    return Document(
        say.language, title(content, say), origin(content, say), opening, tuple(sections),
        say("made_by", version=metadata.version("leverplus")),
    )  # fmt: skip
