"""How many prompts are asked: those that the model computed, and the distinct ones that a stage needed.

What a stage needed is the same whether or not the response cache knew the answers, so it is what methods are compared
by. It is kept in a file of the stage's folder: attempts that were killed count, and what several stages needed in all
is the union of their files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from leverplus_core.io import storage_errors

ASKED = "asked.bin"
"""The prompts that a stage asked, in its folder."""
KEY_BYTES = 8
"""Kept of each prompt's key: among ten million prompts, two are taken for one with probability 3e-6."""


class PromptMeter:
    """Counts what passes a `CachedModel`; `calls` are the prompts that the model itself computed."""

    def __init__(self) -> None:
        self.calls = 0
        self._open: list[tuple[_Asked, Callable[[], None]]] = []

    @contextmanager
    def record(self, file: Path, computed: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Add what is asked inside to the prompts of `file`; `computed` is called after each chunk that was computed.

        Blocks may be nested: a prompt is added to the file of each. Raises StorageError where it cannot be written.
        """
        entry = (_Asked(file), computed)
        self._open.append(entry)
        try:
            yield
        finally:
            self._open.remove(entry)

    def asked(self, keys: Iterable[bytes]) -> None:
        """Prompts were asked, whether or not they are in the cache."""
        short = {key[:KEY_BYTES] for key in keys}
        for prompts, _ in self._open:
            prompts.add(short)

    def computed(self, count: int) -> None:
        """The model has computed so many prompts, and they are stored."""
        self.calls += count
        for _, tell in self._open:
            tell()


class _Asked:
    """A set of keys, of which each new one is appended to a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = read_asked(file) or set()
        with storage_errors(file):
            with file.open("ab"):
                pass
            os.truncate(file, len(self._known) * KEY_BYTES)  # a kill may have left part of a key

    def add(self, keys: set[bytes]) -> None:
        if new := keys - self._known:
            self._known |= new
            with storage_errors(self._file), self._file.open("ab") as f:
                f.write(b"".join(sorted(new)))


def read_asked(file: Path) -> set[bytes] | None:
    """The distinct prompts of a file of `PromptMeter.record`; None where there is no such file."""
    if not file.exists():
        return None
    data = file.read_bytes()
    return {data[i : i + KEY_BYTES] for i in range(0, len(data) - KEY_BYTES + 1, KEY_BYTES)}
