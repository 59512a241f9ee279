"""The contract of an executor, and the one that computes in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

Chunk = Sequence[int]
"""Row numbers of prompts that are computed together."""


class Executor(Protocol):
    """Computes chunks of prompts somewhere. The caller keeps the results, so that it alone writes to the cache."""

    def map(self, compute: Callable[[Chunk], list[str]], chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, list[str]]]:
        """Each chunk once with its results, one per row, in any order."""


class InProcess:
    """One chunk after another in this process."""

    def map(self, compute: Callable[[Chunk], list[str]], chunks: Sequence[Chunk]) -> Iterator[tuple[Chunk, list[str]]]:
        """Each chunk with its results, in order."""
        for chunk in chunks:
            yield chunk, compute(chunk)
