"""Tokenised prompts, and how they are padded to one length: what a stock transformers model takes.

Rows are padded on the left, so that every answer ends at the last column and generation starts from it. The scoring
engine pads only where it must: for beam search, and for a model whose attention cannot be given a tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `start` to `end` of a row stand for the image whose features are known under `key`."""

    start: int
    end: int
    key: str


@dataclass(frozen=True, slots=True)
class Row:
    """A tokenised prompt: ids (L,), positions (A, L) on A rotary axes, and where its images are, in order."""

    ids: Ints
    positions: Ints
    images: tuple[Span, ...] = ()

    def extended(self, tail: Sequence[int]) -> Row:
        """The row with more tokens of text at its end."""
        if not tail:
            return self
        positions = self.positions[:, -1:] + np.arange(1, len(tail) + 1)
        return Row(
            np.concatenate([self.ids, np.asarray(tail, dtype=np.int64)]),
            np.concatenate([self.positions, positions], axis=1),
            self.images,
        )


def by_length(lengths: Sequence[int], budget: int, like: bool = True) -> Iterator[list[int]]:
    """Row numbers in batches of like length, each of at most `budget` padded tokens (or one row).

    Without `like`, in the order in which they come.
    """
    batch: list[int] = []
    longest = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__) if like else range(len(lengths)):
        longest = max(longest, lengths[i])
        if batch and (len(batch) + 1) * longest > budget:
            yield batch
            batch, longest = [], lengths[i]
        batch.append(i)
    if batch:
        yield batch


def pad(rows: Sequence[Row], fill: int, model: Any, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Embedded rows, padded on the left with the token `fill`: what the model's forward and generate take."""
    length = max(len(row.ids) for row in rows)
    axes = len(rows[0].positions)
    ids = np.full((len(rows), length), fill, dtype=np.int64)
    mask = np.zeros((len(rows), length), dtype=np.int64)
    positions = np.zeros((axes, len(rows), length), dtype=np.int64)
    visual = []
    for n, row in enumerate(rows):
        start = length - len(row.ids)
        ids[n, start:], mask[n, start:], positions[:, n, start:] = row.ids, 1, row.positions
        visual += [(n * length + start + s.start, features[s.key]) for s in row.images]
    at = torch.from_numpy(positions).to(model.device)
    return {
        "inputs_embeds": embed(ids.reshape(-1), visual, model).view(len(rows), length, -1),
        "attention_mask": torch.from_numpy(mask).to(model.device),
        "position_ids": at if axes > 1 else at[0],
    }


@torch.inference_mode()
def embed(ids: Ints, visual: Sequence[tuple[int, Tensor]], model: Any) -> Tensor:
    """(N, D) the embeddings of `ids`, with each of `visual`'s tensors in place of what stands from its offset on."""
    embedded: Tensor = model.get_input_embeddings()(torch.from_numpy(ids).to(model.device))
    if visual:
        where = np.concatenate([np.arange(at, at + len(tensor)) for at, tensor in visual])
        together = torch.cat([tensor for _, tensor in visual]).to(model.device, embedded.dtype)
        embedded[torch.from_numpy(where).to(model.device)] = together
    return embedded
