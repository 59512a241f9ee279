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

import numpy as np
from numpy.typing import NDArray

from leverplus_core.io import storage_errors

ASKED = "asked.bin"
"""The prompts that a stage asked, in its folder."""
COMPUTED = "computed.bin"
"""Those of them that the model itself computed, in the same folder."""
KEY_BYTES = 8
"""Kept of each prompt's key, its last ones: among ten million prompts, two are taken for one with probability 3e-6."""
LOGPROBS, ANSWERS = "logprobs", "answers"
"""Kinds of prompts, which take different times."""
LEAST_S = 2.0
"""Seconds of computing that a speed is taken from, at least."""
KEY = np.dtype("<u8")
Keys = NDArray[np.uint64]


class PromptMeter:
    """Counts what passes a `CachedModel`; `calls` are the prompts that the model itself computed."""

    def __init__(self) -> None:
        self.calls = 0
        self._speeds: dict[str, list[float]] = {}
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

    def asked(self, keys: Sequence[bytes]) -> None:
        """Prompts are asked, whether or not they are in the cache."""
        self._add(self._asked, keys)

    def computed(self, keys: Sequence[bytes]) -> None:
        """The model has computed these prompts, which are about to be stored."""
        self._add(self._computed, keys)
        self.calls += len(keys)

    def took(self, kind: str, images: int, seconds: float) -> None:
        """Prompts of a kind (LOGPROBS, ANSWERS) that show so many images together were computed in so many seconds.

        What comes first of a kind is not counted: it loads weights.
        """
        measured = self._speeds.setdefault(kind, [0.0, 0.0, 0.0])
        if measured[0]:
            measured[1:] = measured[1] + images, measured[2] + seconds
        measured[0] += 1

    def seconds_per_image(self, kind: str) -> float | None:
        """The mean over all that `took` was told of this kind, None before it was told of enough."""
        _, images, seconds = self._speeds.get(kind, (0.0, 0.0, 0.0))
        return seconds / images if images and seconds >= LEAST_S else None

    def _add(self, files: Sequence[_Keys], keys: Sequence[bytes]) -> None:
        if files and keys:
            short = np.unique(np.frombuffer(b"".join([key[-KEY_BYTES:] for key in keys]), KEY))
            for prompts in files:
                prompts.add(short)


class _Keys:
    """A set of keys, of which each new one is appended to a file; in memory a key takes its eight bytes.

    The set is a list of sorted arrays, each of more than twice the keys of the next, so that a key is moved as often as
    its number can be halved (a log-structured merge).
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        there = read_keys(file)
        self._sorted = [] if there is None or not len(there) else [there]
        with storage_errors(file):
            with file.open("ab"):
                pass
            os.truncate(file, sum(map(len, self._sorted)) * KEY_BYTES)  # a kill may have left part of a key

    def add(self, keys: Keys) -> None:
        """Add sorted keys, each once."""
        for known in self._sorted:
            at = np.searchsorted(known, keys)
            keys = keys[known[np.minimum(at, len(known) - 1)] != keys]
        if not len(keys):
            return
        with storage_errors(self._file), self._file.open("ab") as f:
            f.write(keys.tobytes())
        self._sorted.append(keys)
        while len(self._sorted) > 1 and len(self._sorted[-2]) <= 2 * len(self._sorted[-1]):
            self._sorted[-2:] = [np.sort(np.concatenate(self._sorted[-2:]), kind="stable")]


def read_keys(file: Path) -> Keys | None:
    """The distinct prompts of a file of `PromptMeter.record`, sorted; None where there is no such file."""
    if not file.exists():
        return None
    return np.unique(np.fromfile(file, KEY, count=file.stat().st_size // KEY_BYTES))


def count_keys(files: Iterable[Path]) -> int | None:
    """The distinct prompts of all these files together; None where one of them is absent."""
    found = [read_keys(file) for file in files]
    there = [keys for keys in found if keys is not None]
    if len(there) < len(found):
        return None
    return len(there[0]) if len(there) == 1 else len(np.unique(np.concatenate([*there, np.empty(0, KEY)])))
