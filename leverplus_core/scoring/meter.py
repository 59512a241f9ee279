"""How many prompts are asked: those that the model computed, and the distinct ones that a stage needed.

What a stage needed is the same whether or not the response cache knew the answers, so it is what methods are compared
by. Both are kept in files of the stage's folder, as sets that are written ahead of what they count: attempts that were
killed count, a prompt that was lost with one and computed again counts once, and what several stages needed in all is
the union of their files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from leverplus_core.io import storage_errors

ASKED = "asked.bin"
"""The prompts that a stage asked, in its folder."""
COMPUTED = "computed.bin"
"""Those of them that the model itself computed, in the same folder."""
KEY_BYTES = 8
"""Kept of each prompt's key: among ten million prompts, two are taken for one with probability 3e-6."""


class PromptMeter:
    """Counts what passes a `CachedModel`; `calls` are the prompts that the model itself computed."""

    def __init__(self) -> None:
        self.calls = 0
        self._asked: list[_Keys] = []
        self._computed: list[_Keys] = []

    @contextmanager
    def record(self, asked: Path, computed: Path | None = None) -> Iterator[None]:
        """Add what is asked inside to the prompts of a file, and what of it the model computes to those of another.

        Blocks may be nested: a prompt is added to the files of each. Raises StorageError where one cannot be written.
        """
        open_files = [(self._asked, _Keys(asked))] + ([(self._computed, _Keys(computed))] if computed else [])
        for files, keys in open_files:
            files.append(keys)
        try:
            yield
        finally:
            for files, keys in open_files:
                files.remove(keys)

    def asked(self, keys: Iterable[bytes]) -> None:
        """Prompts are asked, whether or not they are in the cache."""
        short = {key[:KEY_BYTES] for key in keys}
        for prompts in self._asked:
            prompts.add(short)

    def computed(self, keys: Sequence[bytes]) -> None:
        """The model has computed these prompts, which are about to be stored."""
        short = {key[:KEY_BYTES] for key in keys}
        for prompts in self._computed:
            prompts.add(short)
        self.calls += len(keys)


class _Keys:
    """A set of keys, of which each new one is appended to a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = read_keys(file) or set()
        with storage_errors(file):
            with file.open("ab"):
                pass
            os.truncate(file, len(self._known) * KEY_BYTES)  # a kill may have left part of a key

    def add(self, keys: set[bytes]) -> None:
        if new := keys - self._known:
            self._known |= new
            with storage_errors(self._file), self._file.open("ab") as f:
                f.write(b"".join(sorted(new)))


def read_keys(file: Path) -> set[bytes] | None:
    """The distinct prompts of a file of `PromptMeter.record`; None where there is no such file."""
    if not file.exists():
        return None
    data = file.read_bytes()
    return {data[i : i + KEY_BYTES] for i in range(0, len(data) - KEY_BYTES + 1, KEY_BYTES)}
