"""How tables are drawn, on a terminal of 80 columns, as Markdown and as CSV, and how numbers are written."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from leverplus_core.text import csv_cell, shown

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult


class Title(str):
    """A bold line: the subject of the table below it."""


class Remark(str):
    """A dim line: what a reader must know about the tables above it."""


@dataclass(frozen=True)
class Grid:
    """A table of texts. `align` has a letter per column: `w` words (left, may wrap), `p` paths (left, may break
    anywhere), `n` numbers (right, never cut), `m` marks (left, never cut); columns beyond it are `n`. Without `heads`
    it is a list of names and values.

    On a terminal too narrow for its longest words, columns of `drop` are left out, the first of these first, and said;
    what is wider still is split into several tables that repeat the first column."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str = "w"
    gap: int = 0
    drop: Sequence[str] = ()


Block = Title | Remark | Grid | str


@dataclass(frozen=True)
class View:
    """Blocks one below the other. rich prints it; an empty block is a blank line."""

    blocks: Sequence[Block]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for block in self.blocks:
            fitted = _fitted(block, options.max_width) if isinstance(block, Grid) and block.heads else [block]
            yield from (_drawn(part, options.max_width) for part in fitted)

    def markdown(self) -> str:
        """The same as Markdown, with titles as headings and remarks in italics."""
        return "\n\n".join(_markdown(block) for block in self.blocks if block) + "\n"


def stacked(*blocks: Block) -> View:
    """Blocks with a blank line between each two."""
    return View([part for block in blocks for part in (block, "")][:-1])


def _kinds(grid: Grid) -> str:
    return grid.align.ljust(len(grid.heads), "n")


PATH = 30
"""The fewest cells of a column of paths that are longer."""


def _columns(grid: Grid) -> list[tuple[int, int]]:
    """(the fewest cells, the cells without wrapping) of each column: words may wrap between words."""
    from rich.cells import cell_len

    found = []
    for i, (head, kind) in enumerate(zip(grid.heads, _kinds(grid), strict=True)):
        lines = [line for text in (head, *(row[i] for row in grid.rows)) for line in shown(text).splitlines()]
        words = [word for line in lines for word in line.split()] if kind == "w" else lines
        low, high = (max(map(cell_len, texts), default=0) for texts in (words, lines))
        found.append((min(low, PATH) if kind == "p" else low, high))
    return found


def _total(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + (len(widths) - 1) * (1 + gap)


def _fitted(grid: Grid, width: int) -> list[Block]:
    """The grid in so many cells: without columns that it may drop, then in several tables."""
    fewest = dict(enumerate(low for low, _ in _columns(grid)))
    dropped: list[str] = []
    for head in grid.drop:
        if _total(list(fewest.values()), grid.gap) <= width:
            break
        if head in grid.heads:
            del fewest[list(grid.heads).index(head)]
            dropped.append(head)
    told = [Remark(f"not shown for want of width: {', '.join(dropped)}")] if dropped else []
    tables: list[list[int]] = []
    first, *others = fewest
    for column in others:
        if not tables or _total([fewest[i] for i in (*tables[-1], column)], grid.gap) > width:
            tables.append([first])
        tables[-1].append(column)
    return [*(_only(grid, columns, split=len(tables) > 1) for columns in tables or [[first]]), *told]


def _only(grid: Grid, columns: Sequence[int], split: bool) -> Grid:
    rows = [[row[i] for i in columns] for row in grid.rows]
    kept = [row for row in rows if not split or any(cell != "-" for cell in row[1:])]
    kinds = _kinds(grid)
    return Grid([grid.heads[i] for i in columns], kept, "".join(kinds[i] for i in columns), grid.gap)


def _wrapped(grid: Grid, width: int) -> list[int]:
    """The widths of the columns, where the widest columns of words give way first, and none breaks a word."""
    fewest, widths = (list(ends) for ends in zip(*_columns(grid), strict=True))
    while _total(widths, grid.gap) > width:
        give = [i for i in range(len(widths)) if widths[i] > fewest[i]]
        if not give:
            break
        widths[max(give, key=widths.__getitem__)] -= 1
    return widths


def _drawn(block: Block, width: int) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not isinstance(block, Grid):
        return Text(
            shown(block), style="bold" if isinstance(block, Title) else "dim" if isinstance(block, Remark) else ""
        )
    table = Table(
        box=box.SIMPLE_HEAD if block.heads else None, padding=(0, block.gap, 0, 0), show_edge=False, pad_edge=False,
        show_header=bool(block.heads),
    )  # fmt: skip
    widths: Sequence[int | None] = _wrapped(block, width) if block.heads else [None] * len(block.align)
    if block.heads and _total([w or 0 for w in widths], block.gap) > width:
        widths = [None] * len(widths)  # rich breaks words, rather than leave columns out
    for head, kind, wide in zip(block.heads or block.align, _kinds(block), widths, strict=True):
        words, justify = kind in "wp", "right" if kind == "n" else "left"
        style = "dim" if not block.heads and not table.columns else None
        table.add_column(
            Text(shown(head)), justify=justify, no_wrap=not words, overflow="fold" if words else None,  # type: ignore[arg-type]
            style=style, width=wide,
        )  # fmt: skip
    for row in block.rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    return table


def _markdown(block: Block) -> str:
    if isinstance(block, Grid):
        align = _kinds(block)
        lines = [block.heads or [""] * len(align), ["---:" if kind == "n" else "---" for kind in align], *block.rows]
        escaped = [[escape_markdown(cell) if i != 1 else cell for cell in row] for i, row in enumerate(lines)]
        return "\n".join(f"| {' | '.join(row)} |" for row in escaped)
    text = escape_markdown(", ".join(block.splitlines()))
    return f"### {text}" if isinstance(block, Title) else f"*{text}*" if isinstance(block, Remark) else text


_INLINE = re.compile(
    r"(\[[-+?\d., ]+\](?![(:\[]))|[\\`*|<~$\[\]]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)"  # first an interval, which stays
)
"""Markup wherever it stands, and `_` and `&` where they would make emphasis or a character."""
_BLOCK = re.compile(r"^(\d{0,9})([#+.)=-])(?=[\s#=-]|$)|^()(>)")
"""What begins a heading, a quotation or a list."""


def escape_markdown(text: Any) -> str:
    """Text that a reader sees unchanged, anywhere in a paragraph or a table cell."""
    plain = shown(" ".join(str(text).split()))
    return _BLOCK.sub(r"\1\3\\\2\4", _INLINE.sub(lambda found: found[1] or f"\\{found[0]}", plain))


def csv_text(rows: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> str:
    """The `fields` of `rows` as CSV with a head, each as `csv_cell`; None is an empty field."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({field: csv_cell(row.get(field)) for field in fields} for row in rows)
    return out.getvalue()


# Numbers.


def percent(value: float) -> str:
    """A share or an accuracy in [0, 1] as percent, to one decimal."""
    return f"{100 * value:.1f}"


def points(value: float, digits: int = 1) -> str:
    """A signed difference in points; no sign on what rounds to zero."""
    text = f"{100 * value:+.{digits}f}"
    return text if Decimal(text) else text[1:]


def bracket(low: float | None, high: float | None) -> str:
    """An interval of accuracies or shares in percent; `?` for an end that is not known."""
    return f"[{', '.join('?' if end is None else percent(end) for end in (low, high))}]"


def interval(low: float, high: float) -> str:
    """An interval of differences in points, with as many digits as show that it excludes zero where it does.

    An end of 0.0, without a sign, belongs to it.
    """
    digits = next(
        (d for d in (1, 2, 3) if (round(100 * low, d) > 0) == (low > 0) and (round(100 * high, d) < 0) == (high < 0)), 4
    )
    return f"[{points(low, digits)}, {points(high, digits)}]"


def count(value: float) -> str:
    """A count, or the mean of counts to one decimal."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def shots_text(shots: int) -> str:
    """`1 shot`, `2 shots`."""
    return f"{shots} shot{'' if shots == 1 else 's'}"


def two_lines(method: str) -> str:
    """`sft` above `+blank_images`: the name of an ablation in a narrow column."""
    return method.replace("+", "\n+", 1) if len(method) > 12 else method
