"""Accuracy tables that others published, read from Markdown as exact decimals.

Such a table has a row per sample size and number of shots and a column per method, in percent. It holds no predictions.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from pydantic import Field

from leverplus_core import DataError, PublishedCell, PublishedTable, ResultsImporter

# Heads as `_key` leaves them: no spaces, no parentheses, small letters.
_SIZE = re.compile(
    r"n|size|(num|numberof|test|evaluation)?(sample|question)s?(size|num)?s?|(测试|评测)?(样本|数据|问题|题).*"
)
_SHOTS = re.compile(r"k|[kn]?shots?(num|number|数|数量)?|(num|numberof)shots?|(样例|示例|演示).*")
_NO_METHOD = re.compile(
    r"best(method|value)?|winner|diff(erence)?s?|delta|δ|gain|improvement|mark|verdict|notes?|remarks?"
    r"|(最佳|最优|最好).*|.*(差异|差值|差距|提升)|评价|结论|备注|说明"
)
_ARROWS = r"[↑↓▲▼△▽⬆⬇⇑⇓→←↗↘➡\uFE0F\s]*"
_ACCURACY = re.compile(rf"{_ARROWS}(\d{{1,3}}(?:\.\d{{1,20}})?)\s*(%?){_ARROWS}")
_COUNTS = {"n": re.compile(r"(\d{1,3}(?:,\d{3})+|\d{1,9})"), "shots": re.compile(r"(\d{1,4})(?:\s*-?\s*shots?)?", re.I)}
LONGEST_METHOD = 64
COLUMNS = "Needed: a column of sample sizes ('Sample size', 'n', '样本数'), one of shots ('Shot'), one per method."


class TableImporter(ResultsImporter):
    """A published table of accuracies in percent (Markdown), as a run of results without predictions."""

    table: int | None = Field(None, ge=1, description="Which table of the file, from 1, where it has several.")

    def recognizes(self, source: Path) -> bool:
        """By its name, .md."""
        return source.suffix == ".md" and os.path.isfile(source)

    def read(self, source: Path) -> PublishedTable:
        """The table of sample sizes and shots in `source`.

        Raises DataError, naming the line, for a file without such a table, a cell that is missing or no percentage in
        [0, 100], a percent sign that only some values carry, and two rows for one sample size and number of shots.
        """
        try:
            text = source.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as e:
            raise DataError(f"{source} is not UTF-8 text.", "Save the table as a Markdown file in UTF-8.") from e
        except OSError as e:
            raise DataError(f"{source} cannot be read: {e.strerror}.", "Give the path of a Markdown file.") from e
        tables = list(_tables(text))
        fitting = [t for t in tables if len(_axes(t[0].cells)) == 2]
        if not fitting:
            heads = "; ".join(", ".join(cell or "''" for cell in t[0].cells) for t in tables)
            found = f"its tables have the columns {heads}" if tables else "there is no Markdown table in it"
            raise DataError(f"{source} has no table of sample sizes and shots: {found}.", COLUMNS)
        lines = ", ".join(str(t[0].line) for t in fitting)
        if self.table is None and len(fitting) > 1:
            hint = "Choose one with --table 1, 2, ..."
            raise DataError(f"{source} has {len(fitting)} such tables, at lines {lines}.", hint)
        if (self.table or 1) > len(fitting):
            hint = f"There are {len(fitting)}, at lines {lines}."
            raise DataError(f"{source} has no table {self.table} of that form.", hint)
        head, *rows = fitting[(self.table or 1) - 1]
        return _table(source, head, rows)


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: list[str]


def _tables(text: str) -> Iterator[list[_Row]]:
    """The rows of each Markdown table, head first, as plain text."""
    rows: list[_Row] = []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if "|" in line:
            bare = re.sub(r"^[\s>]*\|?|(?<!\\)\|\s*$", "", line)
            rows.append(_Row(number, [_plain(cell) for cell in re.split(r"(?<!\\)\|", bare)]))
        else:
            if len(rows) > 1 and all(re.fullmatch(r":?-+:?", cell) for cell in rows[1].cells):
                yield [rows[0], *rows[2:]]
            rows = []


def _plain(cell: str) -> str:
    """What a reader sees: no emphasis, one form of each digit and sign, single spaces."""
    return " ".join(re.sub(r"[*`]|__", "", unicodedata.normalize("NFKC", cell)).replace("\\|", "|").split())


def _key(head: str) -> str:
    return re.sub(r"\(.*?\)|[\s_#.-]", "", head).casefold()


def _axes(head: Sequence[str]) -> dict[str, int]:
    """Where the columns `n` and `shots` stand; not both where the head has not one of each."""
    found = {}
    for axis, form in (("n", _SIZE), ("shots", _SHOTS)):
        places = [i for i, cell in enumerate(head) if form.fullmatch(_key(cell))]
        if len(places) == 1:
            found[axis] = places[0]
    return found


def _table(path: Path, head: _Row, rows: Sequence[_Row]) -> PublishedTable:
    axes, where = _axes(head.cells), f"{path}:{head.line}"
    columns = {i: re.sub(r"\s*\(%\)$", "", c) for i, c in enumerate(head.cells) if i not in axes.values()}
    methods = {i: name for i, name in columns.items() if not _NO_METHOD.fullmatch(_key(name))}
    if not methods or not rows:
        raise DataError(f"{where}: the table has no {'rows' if methods else 'column of a method'}.", COLUMNS)
    for name, count in Counter(methods.values()).items():
        if not name or count > 1:
            raise DataError(f"{where}: {count} columns have the name '{name}'.", "Give each method its own name.")
        if ":" in name or len(name) > LONGEST_METHOD:
            limit = f"A method's name has no ':' and at most {LONGEST_METHOD} characters."
            raise DataError(f"{where}: column '{name}' cannot name a method.", limit)
    cells: list[PublishedCell] = []
    first_at: dict[tuple[int, int], int] = {}
    signed: dict[bool, list[str]] = {True: [], False: []}
    for row in rows:
        here = f"{path}:{row.line}"
        if len(row.cells) > len(head.cells):
            what = f"{len(row.cells)} cells under {len(head.cells)} columns"
            raise DataError(f"{here}: {what}.", "Remove the surplus cells.")
        row.cells.extend([""] * (len(head.cells) - len(row.cells)))
        n, shots = (_count(here, axis, head.cells[axes[axis]], row.cells[axes[axis]]) for axis in ("n", "shots"))
        if (earlier := first_at.setdefault((n, shots), row.line)) != row.line:
            raise DataError(f"{here}: a second row for n = {n} at {shots} shots.", f"The first is on line {earlier}.")
        for i, method in methods.items():
            text, sign = _accuracy(here, method, row.cells[i])
            signed[bool(sign)].append(f"{here}: '{row.cells[i]}' in column '{method}'")
            cells.append(PublishedCell(method, shots, n, text, row.line))
    if all(signed.values()):
        fewer = len(signed[True]) <= len(signed[False])
        what = "has a stray percent sign; the others carry none" if fewer else "has no percent sign; others carry one"
        raise DataError(f"{signed[fewer][0]} {what}.", "Put it on all values or on none.")
    if not signed[True] and any(c.percent for c in cells) and all(c.percent <= 1 for c in cells):
        raise DataError(f"{where}: no value is above 1, so these look like fractions.", "Give them in percent.")
    left_out = tuple(name for i, name in columns.items() if i not in methods)
    return PublishedTable(tuple(methods.values()), tuple(cells), left_out)


def _require_value(where: str, column: str, cell: str) -> None:
    if cell.casefold() in ("na", "n/a", "nan", "none", "null", "tbd") or not any(c.isalnum() for c in cell):
        raise DataError(f"{where}: column '{column}' has no value.", "Fill the cell, or leave out its row or column.")


def _count(where: str, axis: str, column: str, cell: str) -> int:
    _require_value(where, column, cell)
    found = _COUNTS[axis].fullmatch(cell)
    number = int(found[1].replace(",", "")) if found else -1
    if number < (axis == "n"):
        raise DataError(f"{where}: '{cell}' in column '{column}' is not a whole number.", "Give one, such as 4 or 800.")
    return number


def _accuracy(where: str, column: str, cell: str) -> tuple[str, str]:
    """The number as printed, and its percent sign or ''."""
    _require_value(where, column, cell)
    found = _ACCURACY.fullmatch(cell)
    if not found:
        raise DataError(
            f"{where}: '{cell}' in column '{column}' is not an accuracy in percent.",
            "Give one, such as 50.15, or leave the column out.",
        )
    if Decimal(found[1]) > 100:
        raise DataError(f"{where}: {found[1]} in column '{column}' is above 100.", "Accuracies are in percent.")
    return found[1], found[2]
