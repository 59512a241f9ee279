"""What a report is made of: a document of sections, these of sentences, tables and plots, in words and in order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["", "best", "better", "worse", "unseen"]
MARKS: dict[str, tuple[str, Kind]] = {
    "better": ("▲", "better"), "worse": ("▼", "worse"), "no difference seen": ("○", "unseen"),
}  # fmt: skip
"""mark -> symbol and kind"""


@dataclass(frozen=True)
class Cell:
    """`text`, and below it in small an interval (`note`) and a mark in words."""

    text: str
    note: str = ""
    mark: str = ""
    kind: Kind = ""


@dataclass(frozen=True)
class Table:
    """The first `stubs` columns are heads of their rows (`narrow`: short numbers), columns from there on are numbers,
    unless `prose`. A `folded` table is closed until a reader opens it. Of a `marked` one pages show the commonest mark
    by its symbol alone, which a remark explains."""

    id: str
    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    stubs: int = 1
    remarks: tuple[str, ...] = ()
    prose: bool = False
    folded: bool = False
    narrow: bool = False
    marked: bool = False


@dataclass(frozen=True)
class Plot:
    """`svg` is the element alone, without an XML head; its ids begin with the plot's."""

    id: str
    title: str
    svg: str


@dataclass(frozen=True)
class Group:
    """Sentences about one matter, with its name."""

    title: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """`groups` come after the paragraphs, before the blocks. A `folded` section is closed until a reader opens it."""

    id: str
    title: str
    paragraphs: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    blocks: tuple[Table | Plot, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Lead:
    """What a reader sees first: the finding in one sentence, what that is about, its mark and its picture."""

    sentence: str
    about: str = ""
    mark: str = ""
    kind: Kind = ""
    plot: Plot | None = None


@dataclass(frozen=True)
class Document:
    """A whole report in one language; `origin` says on one line which runs it is about, when and where they ran."""

    language: str
    title: str
    origin: str
    lead: Lead
    sections: tuple[Section, ...]
    foot: str

    @property
    def plots(self) -> list[Plot]:
        """All plots, in order."""
        first = [self.lead.plot] if self.lead.plot else []
        return first + [block for section in self.sections for block in section.blocks if isinstance(block, Plot)]


def table(
    id: str, caption: str, heads: Iterable[str], rows: Iterable[Iterable[Cell | str]], remarks: Iterable[str] = (),
    **more: Any,
) -> Table:  # fmt: skip
    """A table whose cells may be plain texts."""
    cells = tuple(tuple(Cell(cell) if isinstance(cell, str) else cell for cell in row) for row in rows)
    return Table(id, caption, tuple(heads), cells, remarks=tuple(remarks), **more)
