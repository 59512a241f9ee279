"""JSON files that are one large object, read and written an entry at a time: never in memory as a whole."""

from __future__ import annotations

import codecs
import json
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from leverplus_core import (
    DataError,
    DataImporter,
    EmbeddingData,
    Exporter,
    ImportReport,
    Progress,
    Question,
    QuestionData,
    decode_json,
)
from leverplus_formats.rows import Rows

META = "_meta"
CHUNK, LARGEST = 1 << 20, 1 << 26
"""Characters that are read at a time, and that one entry may have."""

_SPACE = re.compile(r"[ \t\n\r]*")
_UNFINISHED = re.compile(r"[\w.+-]*\s*")  # a word or number, or nothing, where the file ends


class JsonImporter(DataImporter):
    """Reads a file of the form {row: entry}; `_meta` is passed over."""

    @abstractmethod
    def entry(self, key: str, value: Any, rows: Rows, report: ImportReport) -> QuestionData:
        """Parse and check one entry. Leaks and repeats are left out and counted; everything else raises DataError."""

    def read(
        self, source: Path, report: ImportReport, questions: Sequence[Question] | None, progress: Progress
    ) -> Iterator[QuestionData]:
        """The questions of the file. Raises DataError as `entries` and `entry`."""
        rows = Rows(questions)
        return (self.entry(k, value, rows, report) for k, value in entries(source, progress) if k != META)


class JsonExporter(Exporter):
    """Writes a file of the form {row: entry}."""

    @abstractmethod
    def entry(self, row: int, data: QuestionData, rows: Rows) -> dict[str, Any]:
        """The entry of one question. Raises DataError for a demonstration that has no row."""

    def write(
        self, data: Iterable[QuestionData | EmbeddingData], out: BinaryIO, questions: Sequence[Question] | None
    ) -> None:
        """An entry per line, in the order given. Raises DataError as `entry`, and for a question that has no row."""
        rows, before = Rows(questions), "{\n"
        for one in data:
            if isinstance(one, QuestionData):
                row = rows.row_of(one.question_id)
                text = json.dumps(self.entry(row, one, rows), ensure_ascii=False, separators=(",", ":"))
                out.write(f'{before}"{row}":{text}'.encode())
                before = ",\n"
        out.write(b"\n}\n")


def has_key(path: Path, *names: str) -> bool:
    """Whether `path` is a .json file with one of these keys in its first bytes; False where it cannot be read."""
    try:
        with path.open("rb") as f:
            head = f.read(CHUNK)
    except OSError:
        return False
    return path.suffix == ".json" and any(f'"{name}"'.encode() in head for name in names)


def entries(path: Path, progress: Progress, *, inside: str = "", lenient: bool = False) -> Iterator[tuple[str, Any]]:
    """(key, value) of each entry of the object in `path`, in order; of the list at the key `inside`, each element.

    `lenient` reads NaN and Infinity, which other programs write into their logs, as null.

    Raises DataError, in one line, for a file that is absent, empty, cut, not UTF-8, no object, not JSON (NaN is not),
    nested too deeply, or has an integer of thousands of digits, half of a surrogate pair or an entry of over 64 MB.
    """
    where = "in its first entry"
    try:
        size = path.stat().st_size
        with path.open("rb") as f, progress.task(f"read {path.name} (MB)", size // CHUNK) as task:
            text = _Text(f, task.advance, lenient)
            opening = text.next()
            if opening != "{":
                what = f"starts with {opening!r}" if opening else "is empty"
                raise DataError(f"{path} {what}.", "It must be one JSON object, {...}.")
            more = text.next(take=False) != "}" or not text.next()
            while more:
                key = text.value()
                if not isinstance(key, str) or text.next() != ":":
                    raise ValueError("a key and ':' are expected")
                if key == inside and text.next(take=False) == "[":
                    yield from ((key, value) for value in text.elements())
                else:
                    yield key, text.value()
                where = f"after entry '{key[:40]}'"
                separator = text.next()
                if separator not in (",", "}"):
                    raise ValueError("',' or '}' is expected") if separator else _Cut
                more = separator == ","
            if text.next():
                raise ValueError("text follows the object")
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror or e}.", "Check the path.") from e
    except _Cut as e:
        raise DataError(f"{path} ends in the middle, {where}.", "It was cut: copy it again.") from e
    except ValueError as e:
        hint = "Correct the file or write it again."
        raise DataError(f"{path} is not JSON {where}: {_reason(e)}.", hint) from e


def text_of(value: object) -> str:
    """A value of a log as text: '' for null."""
    return value if isinstance(value, str) else "" if value is None else str(value)


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "it is not UTF-8 text"
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


class _Cut(Exception):
    """The file ends before its object does."""


class _Text:
    """The text of a file from a moving position on."""

    def __init__(self, file: BinaryIO, advance: Callable[[int], object], lenient: bool) -> None:
        self._file, self._advance, self._lenient = file, advance, lenient
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at = "", 0

    def next(self, take: bool = True) -> str:
        """The next character that is no white space; '' at the end of the file."""
        while True:
            if space := _SPACE.match(self._text, self._at):
                self._at = space.end()
            if self._at < len(self._text):
                self._at += take
                return self._text[self._at - take]
            if not self._more():
                return ""

    def value(self) -> Any:
        """The JSON value that begins here."""
        self.next(take=False)
        while True:
            try:
                value, end = decode_json(self._text, self._at, lenient=self._lenient)
            except json.JSONDecodeError as e:
                if self._more():
                    continue
                if e.msg.startswith("Unterminated") or _UNFINISHED.fullmatch(self._text, e.pos):
                    raise _Cut from e
                raise
            if end == len(self._text) and self._more():
                continue  # a number may go on
            self._at = end
            return value

    def elements(self) -> Iterator[Any]:
        """The elements of the list that begins here, each as it is read."""
        self.next()
        more = self.next(take=False) != "]" or not self.next()
        while more:
            yield self.value()
            separator = self.next()
            if separator not in (",", "]"):
                raise ValueError("',' or ']' is expected") if separator else _Cut
            more = separator == ","

    def _more(self) -> bool:
        """Read on, as much as there is of this entry, so that long ones are not parsed too often; False at the end."""
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > LARGEST:
            raise ValueError(f"an entry has over {LARGEST >> 20} MB, or a quote or bracket is never closed")
        data = self._file.read(max(CHUNK, len(self._text)))
        self._advance(len(data) // CHUNK)
        try:
            self._text += self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as e:
            raise e if data else _Cut from e
        return bool(data)
