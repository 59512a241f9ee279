"""Accuracy tables that others published: read from Markdown as exact decimals, and what their sample sizes imply.

Such a table has a row for each sample size and number of shots and a column for each method, in percent. It holds no
predictions, so no difference in it can be paired; what is left are the intervals of independent proportions.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from leverplus_core.errors import DataError
from leverplus_core.statistics import Interval

if TYPE_CHECKING:
    from markdown_it.token import Token

# Heads as `_key` leaves them: no spaces, no parentheses, small letters.
SIZE_HEADS = frozenset(
    {
        "n",
        "size",
        "sample",
        "samples",
        "samplesize",
        "samplesizes",
        "numsamples",
        "samplenum",
        "numberofsamples",
        "testsamples",
    }
    | {"evaluationsamples", "question", "questions", "numberofquestions", "样本", "样本数", "样本量", "样本数量"}
    | {"样本规模", "测试样本", "测试样本数", "测试样本量", "评测样本数", "数据量", "题数", "问题数", "问题数量"}
)
SHOT_HEADS = frozenset(
    {
        "k",
        "shot",
        "shots",
        "kshot",
        "nshot",
        "numshots",
        "numberofshots",
        "shotnum",
        "shotnumber",
        "shot数",
        "shots数",
        "shot数量",
    }
    | {"样例", "样例数", "样例数量", "示例", "示例数", "示例数量", "演示数", "演示样例数"}
)
_ARROWS = "↑↓→←↗↘↖↙▲▼△▽⬆⬇⇑⇓"
_ACCURACY = re.compile(rf"[{_ARROWS}\s]*(\d{{1,3}}(?:\.\d{{1,20}})?)\s*(%?)[{_ARROWS}\s]*")
_SHOTS = re.compile(r"(\d{1,4})(?:\s*-?\s*shots?)?", re.IGNORECASE)
_SIZE = re.compile(r"\d{1,3}(?:,\d{3})+|\d{1,9}")
_MISSING = frozenset({"na", "n/a", "nan", "none", "null", "tbd"})
LONGEST_METHOD = 64
COLUMNS = (
    "Needed: a column of sample sizes ('Sample size', 'n', '样本数'), one of shots ('Shot', '样例数'), one a method."
)


@dataclass(frozen=True, slots=True)
class PublishedCell:
    """A method's accuracy as printed: `text` in percent, exactly; `line` of the file, from 1."""

    method: str
    shots: int
    n: int
    text: str
    line: int

    @property
    def percent(self) -> Decimal:
        return Decimal(self.text)

    @property
    def accuracy(self) -> float:
        """In [0, 1], for arithmetic that need not be exact."""
        return float(self.percent / 100)


@dataclass(frozen=True)
class PublishedTable:
    """`methods` in the order of their columns; `cells` row by row, one for each method at each (shots, n) of a row."""

    methods: tuple[str, ...]
    cells: tuple[PublishedCell, ...]

    @property
    def absent(self) -> list[tuple[int, int]]:
        """The (n, shots) that no row gives though others give this n and these shots."""
        there = {(c.n, c.shots) for c in self.cells}
        return sorted({(n, s) for n, _ in there for _, s in there} - there)


def published_interval(accuracy: float, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of an accuracy of `n` questions of which only the mean is known (Wilson, 1927).

    It is right for answers that are right or wrong and conservative for graded ones: among scores in [0, 1] of a
    given mean, 0 and 1 vary most.
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(accuracy * n, n, alpha=1 - level, method="wilson")
    return Interval(accuracy, min(float(low), accuracy), max(float(high), accuracy))


def unpaired_interval(a: float, n_a: int, b: float, n_b: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a - b for two accuracies of which only means and sizes are known (Newcombe, 1998, method 10).

    As if other questions had been put to each, so conservative for methods that answered the same ones alike.
    """
    from statsmodels.stats.proportion import confint_proportions_2indep

    low, high = confint_proportions_2indep(
        a * n_a, n_a, b * n_b, n_b, method="newcomb", compare="diff", alpha=1 - level
    )
    return min(float(low), a - b), max(float(high), a - b)


def read_published(path: Path, which: int | None = None) -> PublishedTable:
    """The table in the Markdown file `path`; `which` of those of that form, from 1, where there are several.

    Raises DataError, naming the line, for a file without such a table, a cell that is missing or no percentage in
    [0, 100], a percent sign that only some values carry, and two rows for one sample size and number of shots.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise DataError(f"{path} is not UTF-8 text.", "Save the table as a Markdown file in UTF-8.") from e
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}.", "Give the path of a Markdown file.") from e
    if not text.strip():
        raise DataError(f"{path} is empty.", COLUMNS)
    tables = list(_tables(text))
    fitting = [t for t in tables if len(_axes(t[0].cells)) == 2]
    if not fitting:
        seen = "; ".join(", ".join(cell or "''" for cell in t[0].cells) for t in tables)
        found = f"its tables have the columns {seen}" if tables else "there is no Markdown table in it"
        raise DataError(f"{path} has no table of sample sizes and shots: {found}.", COLUMNS)
    lines = ", ".join(str(t[0].line) for t in fitting)
    if which is None and len(fitting) > 1:
        raise DataError(
            f"{path} has {len(fitting)} such tables, at lines {lines}.", "Choose one with --table 1, 2, ..."
        )
    if which is not None and not 1 <= which <= len(fitting):
        raise DataError(f"{path} has no table {which} of that form.", f"There are {len(fitting)}, at lines {lines}.")
    head, *rows = fitting[(which or 1) - 1]
    return _table(path, head, rows)


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: list[str]
    width: int  # cells that are written there, which Markdown cuts or fills up to the head's


def _tables(text: str) -> Iterator[list[_Row]]:
    """The rows of each Markdown table, head first, as plain text."""
    from markdown_it import MarkdownIt

    lines = text.splitlines()
    rows: list[_Row] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            rows = []
        elif token.type == "tr_open":
            line = token.map[0] if token.map else 0
            bare = re.sub(r"^\s*(?:>\s*)*\|?|(?<!\\)\|\s*$", "", lines[line])
            rows.append(_Row(line + 1, [], len(re.split(r"(?<!\\)\|", bare))))
        elif token.type == "inline" and rows and token.map and token.map[0] + 1 == rows[-1].line:
            rows[-1].cells.append(_plain(token))
        elif token.type == "table_close":
            yield rows
            rows = []


def _plain(token: Token) -> str:
    """What a reader sees: no emphasis, one form of each digit and sign, single spaces."""
    seen = "".join(child.content for child in token.children or () if child.type in ("text", "code_inline"))
    return " ".join(unicodedata.normalize("NFKC", seen).replace("*", "").split())


def _axes(head: Sequence[str]) -> dict[str, int]:
    """Where the columns `n` and `shots` stand; not both where the head has not one of each."""
    found: dict[str, int] = {}
    for axis, names in (("n", SIZE_HEADS), ("shots", SHOT_HEADS)):
        places = [i for i, cell in enumerate(head) if _key(cell) in names]
        if len(places) == 1:
            found[axis] = places[0]
    return found


def _key(head: str) -> str:
    return re.sub(r"\(.*?\)|[\s_#.-]", "", head).casefold()


def _table(path: Path, head: _Row, rows: Sequence[_Row]) -> PublishedTable:
    axes = _axes(head.cells)
    columns = {i: re.sub(r"\s*\(%\)$", "", c) for i, c in enumerate(head.cells) if i not in axes.values()}
    where = f"{path}:{head.line}"
    if not columns or not rows:
        raise DataError(f"{where}: the table has no {'rows' if columns else 'column of a method'}.", COLUMNS)
    for name, count in Counter(columns.values()).items():
        if not name or count > 1:
            raise DataError(f"{where}: {count} columns have the name '{name}'.", "Give each method its own name.")
        if ":" in name or len(name) > LONGEST_METHOD:
            limit = f"A method's name has no ':' and at most {LONGEST_METHOD} characters."
            raise DataError(f"{where}: column '{name}' cannot name a method.", limit)
    cells: list[PublishedCell] = []
    first_at: dict[tuple[int, int], int] = {}
    signs: list[tuple[bool, str]] = []
    for row in rows:
        here = f"{path}:{row.line}"
        if row.width > len(head.cells):
            raise DataError(f"{here}: {row.width} cells under {head.width} columns.", "Remove what is too much.")
        n = _count(here, head.cells[axes["n"]], row.cells[axes["n"]], _SIZE, least=1)
        shots = _count(here, head.cells[axes["shots"]], row.cells[axes["shots"]], _SHOTS, least=0)
        if (earlier := first_at.setdefault((n, shots), row.line)) != row.line:
            raise DataError(f"{here}: a second row for n = {n} at {shots} shots.", f"The first is on line {earlier}.")
        for i, method in columns.items():
            text, signed = _accuracy(here, method, row.cells[i])
            signs.append((signed, f"{here}: '{row.cells[i]}' in column '{method}'"))
            cells.append(PublishedCell(method, shots, n, text, row.line))
    _same_signs(signs)
    if not signs[0][0] and any(c.percent for c in cells) and all(c.percent <= 1 for c in cells):
        raise DataError(f"{where}: no value is above 1, so these look like fractions.", "Give them in percent.")
    return PublishedTable(tuple(columns.values()), tuple(cells))


def _present(where: str, column: str, cell: str) -> None:
    if cell.casefold() in _MISSING or not any(c.isalnum() for c in cell):
        raise DataError(f"{where}: column '{column}' has no value.", "Fill the cell, or leave out its row or column.")


def _count(where: str, column: str, cell: str, form: re.Pattern[str], least: int) -> int:
    _present(where, column, cell)
    found = form.fullmatch(cell)
    number = int((found[1] if form.groups else found[0]).replace(",", "")) if found else -1
    if number < least:
        raise DataError(f"{where}: '{cell}' in column '{column}' is no whole number.", "Give one, such as 4 or 800.")
    return number


def _accuracy(where: str, column: str, cell: str) -> tuple[str, bool]:
    """The number as printed, and whether it carries a percent sign."""
    _present(where, column, cell)
    found = _ACCURACY.fullmatch(cell)
    if not found:
        raise DataError(
            f"{where}: '{cell}' in column '{column}' is no accuracy in percent.",
            "Give one, such as 50.15, or leave the column out.",
        )
    if Decimal(found[1]) > 100:
        raise DataError(f"{where}: {found[1]} in column '{column}' is above 100.", "Accuracies are in percent.")
    return found[1], bool(found[2])


def _same_signs(signs: Sequence[tuple[bool, str]]) -> None:
    """Raise where some values carry a percent sign and others none, naming the first of the fewer."""
    signed = sum(sign for sign, _ in signs)
    if signed in (0, len(signs)):
        return
    stray = 2 * signed <= len(signs)
    place = next(place for sign, place in signs if sign is stray)
    rest = "the others carry none" if stray else "others carry one"
    what = "a stray percent sign" if stray else "no percent sign"
    raise DataError(f"{place} has {what}; {rest}.", "Put it on all values or on none.")
