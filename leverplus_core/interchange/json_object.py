"""A JSON file that is one large object, an entry at a time: what is in memory is one entry, not the file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson

from leverplus_core.errors import DataError
from leverplus_core.progress import Progress, Silent

_MB = 1_000_000


class JsonObject:
    """`for key, value in JsonObject(path)`; afterwards `sha256` is that of the whole file.

    Iteration raises DataError, in one line, where the file is absent, empty, no object, cut, or not JSON (NaN is not).
    """

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        self.path, self._progress = path, progress or Silent()
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        last = ""
        try:
            size = self.path.stat().st_size
            with self.path.open("rb") as f, self._progress.task(f"read {self.path.name} (MB)", size // _MB) as task:
                reader = _Reader(f, self._hash)
                opening = reader.peek()
                if opening != b"{":
                    what = "is empty" if not opening else f"starts with {opening.decode(errors='replace')!r}"
                    raise DataError(f"{self.path} {what}.", "It must be one JSON object, {...}.")
                shown = 0
                for key, value in ijson.kvitems(reader, "", use_float=True):
                    yield key, value
                    last = key
                    task.advance(reader.count // _MB - shown)
                    shown = reader.count // _MB
        except OSError as e:
            raise DataError(f"{self.path} cannot be read: {e.strerror or e}.", "Check the path.") from e
        except ijson.JSONError as e:
            where = f"after entry '{last}'" if last else "in its first entry"
            said = " ".join(str(e).split())
            if "premature EOF" in said:
                raise DataError(f"{self.path} ends in the middle, {where}.", "It was cut: copy it again.") from e
            token = next((word for word in ("NaN", "Infinity") if word in said), None)
            reason = f"{token} is not JSON" if token else said.partition("(right here)")[0].strip()
            raise DataError(f"{self.path} is not JSON {where}: {reason}.", "Mend or write the file again.") from e


class _Reader:
    """Hashes and counts what is read; skips a byte order mark."""

    def __init__(self, file: Any, digest: Any) -> None:
        self._file, self._digest, self._ahead, self.count = file, digest, b"", 0

    def peek(self) -> bytes:
        """The first byte that is no white space."""
        head = self._take(4096)
        while head and not head.strip():
            head = self._take(4096)
        self._ahead = head.removeprefix(b"\xef\xbb\xbf")
        return self._ahead.lstrip()[:1]

    def read(self, size: int = -1) -> bytes:
        if size == 0:  # asked once, to learn whether bytes or text come
            return b""
        data, self._ahead = self._ahead or self._take(max(size, 1 << 18)), b""
        return data

    def _take(self, size: int) -> bytes:
        data: bytes = self._file.read(size)
        self._digest.update(data)
        self.count += len(data)
        return data
