"""Tokenized prompts, and how they are grouped by length; no torch here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start` to `end` of a row are visual tokens; the image's features are stored under `key`."""

    start: int
    end: int
    key: str


@dataclass(frozen=True, slots=True)
class Row:
    """A tokenized prompt: ids (L,), positions (A, L) on A rotary axes, and the spans of its images, in order."""

    ids: Ints
    positions: Ints
    images: tuple[Span, ...] = ()

    def extended(self, tail: Sequence[int]) -> Row:
        """The row with text tokens `tail` appended."""
        if not tail:
            return self
        positions = self.positions[:, -1:] + np.arange(1, len(tail) + 1)
        return Row(
            np.concatenate([self.ids, np.asarray(tail, dtype=np.int64)]),
            np.concatenate([self.positions, positions], axis=1),
            self.images,
        )


def sequence_keys(rows: Sequence[Row]) -> list[Ints]:
    """Ids (L,) of each row, in which every visual token is -1 minus the number of its image.

    Two rows have equal keys exactly when they have equal tokens and images.
    """
    numbers: dict[str, int] = {}
    keys = []
    for row in rows:
        key = row.ids
        if row.images:
            key = key.copy()
            for span in row.images:
                key[span.start : span.end] = -1 - numbers.setdefault(span.key, len(numbers))
        keys.append(key)
    return keys


def length_batches(lengths: Sequence[int], budget: int, bucket_by_length: bool = True) -> Iterator[list[int]]:
    """Row numbers in batches of at most `budget` padded tokens, or of one row.

    With `bucket_by_length` rows of similar length share a batch; else batches follow the given order.
    """
    batch: list[int] = []
    longest = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__) if bucket_by_length else range(len(lengths)):
        longest = max(longest, lengths[i])
        if batch and (len(batch) + 1) * longest > budget:
            yield batch
            batch, longest = [], lengths[i]
        batch.append(i)
    if batch:
        yield batch
