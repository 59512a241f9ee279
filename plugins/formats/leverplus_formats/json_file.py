"""A JSON file that is one large object, read and written an entry at a time: the file is never in memory as a whole."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from leverplus_core import DataError, Progress

HEAD = 1 << 16
CHUNK = 1 << 20
LARGEST = 1 << 26
"""Characters that one entry may have."""

_SPACE = re.compile(r"[ \t\n\r]*")
_UNFINISHED = re.compile(r"[\w.+-]*\s*")  # a word or number, or nothing, where the file ends


def has_key(path: Path, *names: str) -> bool:
    """Whether `path` is a .json file with one of these keys in its first bytes; False where it cannot be read."""
    try:
        with path.open("rb") as f:
            head = f.read(HEAD)
    except OSError:
        return False
    return path.suffix == ".json" and any(f'"{name}"'.encode() in head for name in names)


def entries(path: Path, progress: Progress | None = None) -> Iterator[tuple[str, Any]]:
    """(key, value) of each entry of the object in `path`, in order.

    Raises DataError, in one line, for a file that is absent, empty, cut, not UTF-8, no object, not JSON (NaN is not),
    nested too deeply, or has an integer of thousands of digits, half of a surrogate pair or an entry of over 64 MB.
    """
    after = "in its first entry"
    try:
        size = path.stat().st_size
        task = progress.task(f"read {path.name} (MB)", size // CHUNK) if progress else nullcontext()
        with path.open("rb") as f, task as shown:
            text = _Text(f, shown.advance if shown else lambda: None)
            opening = text.next()
            if opening != "{":
                what = f"starts with {opening!r}" if opening else "is empty"
                raise DataError(f"{path} {what}.", "It must be one JSON object, {...}.")
            separator = "{"
            while separator != "}" and not (separator == "{" and text.next(take=False) == "}" and text.next()):
                key = text.value()
                colon = text.next()
                if not isinstance(key, str) or colon not in (":", ""):
                    raise _NotJson("expected a key and ':'")
                value = text.value()
                separator = text.next()
                if separator not in (",", "}"):
                    raise _Cut if not separator else _NotJson("expected ',' or '}'")
                yield key, value
                after = f"after entry '{key[:40]}'"
            if text.next():
                raise _NotJson("text follows the object")
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror or e}.", "Check the path.") from e
    except _Cut as e:
        raise DataError(f"{path} ends in the middle, {after}.", "It was cut: copy it again.") from e
    except UnicodeError as e:
        raise DataError(f"{path} is not UTF-8 text, {after}.", "Write it again as UTF-8.") from e
    except RecursionError as e:
        raise DataError(
            f"{path} is nested too deeply, {after}.", "Entries are lists and objects of a few levels."
        ) from e
    except ValueError as e:
        reason = e.msg if isinstance(e, json.JSONDecodeError) else str(e).partition(";")[0]
        raise DataError(f"{path} is not JSON {after}: {reason}.", "Correct the file or write it again.") from e


def write_entries(out: BinaryIO, items: Iterable[tuple[str, Any]]) -> None:
    """One JSON object, an entry per line, in the order given."""
    before = "{\n"
    for key, value in items:
        entry = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        out.write(f"{before}{json.dumps(key)}:{entry}".encode())
        before = ",\n"
    out.write(b"\n}\n" if before == ",\n" else b"{}\n")


class _NotJson(ValueError):
    pass


class _Cut(Exception):
    """The file ends before its object does."""


def _refuse(token: str) -> NoReturn:
    raise _NotJson(f"{token} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


class _Text:
    """The text of a file from a moving position on."""

    def __init__(self, file: BinaryIO, advance: Any) -> None:
        self._file, self._advance = file, advance
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text, self._at = "", 0

    def next(self, take: bool = True) -> str:
        """The next character that is no white space; '' at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
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
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as e:
                if self._more():
                    continue
                if e.msg.startswith("Unterminated") or _UNFINISHED.fullmatch(self._text, e.pos):
                    raise _Cut from e
                raise
            if end == len(self._text) and self._more():
                continue  # a number may go on
            if "\\ud" in self._text[self._at : end].lower():
                json.dumps(value, ensure_ascii=False).encode()  # UnicodeError for half of a surrogate pair
            self._at = end
            return value

    def _more(self) -> bool:
        """Read on, twice as far each time that one entry needs more; False at the end of the file."""
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > LARGEST:
            raise _NotJson(f"an entry of more than {LARGEST >> 20} MB, or a quote or bracket that is never closed")
        while data := self._file.read(max(CHUNK, len(self._text))):
            for _ in range(max(1, len(data) // CHUNK)):
                self._advance()
            if more := self._decode(data):
                self._text += more
                return True
        try:
            self._decode(b"", True)
        except UnicodeDecodeError as e:
            raise _Cut from e
        return False
