"""Embedded prompts padded to one length: the input that a stock transformers model takes.

Rows are padded on the left, so that every answer ends at the last column and generation starts there. The engine pads
only for beam search and for models that tree attention does not support.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leverplus_models.engine.device import to_device
from leverplus_models.engine.rows import Ints, Row


def pad(rows: Sequence[Row], pad_id: int, model: Any, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keyword arguments of the model's `forward` and `generate`: embeddings (B, L, D), attention mask and positions.

    `features` holds the visual tokens (V, D) of every image in `rows`, by key.
    """
    length = max(len(row.ids) for row in rows)
    axes = len(rows[0].positions)
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), length), dtype=np.int64)
    positions = np.zeros((axes, len(rows), length), dtype=np.int64)
    visual = []
    for n, row in enumerate(rows):
        start = length - len(row.ids)
        ids[n, start:], mask[n, start:], positions[:, n, start:] = row.ids, 1, row.positions
        visual += [(n * length + start + s.start, features[s.key]) for s in row.images]
    position_ids = torch.from_numpy(positions).to(model.device)
    return {
        "inputs_embeds": embed(ids.reshape(-1), visual, model).view(len(rows), length, -1),
        "attention_mask": torch.from_numpy(mask).to(model.device),
        "position_ids": position_ids if axes > 1 else position_ids[0],
    }


@torch.inference_mode()
def embed(ids: Ints, visual: Sequence[tuple[int, Tensor]], model: Any) -> Tensor:
    """Embeddings (N, D) of `ids` (N,); each (offset, features) of `visual` replaces what starts at its offset."""
    embedded: Tensor = model.get_input_embeddings()(to_device(ids, model.device))
    if visual:
        where = np.concatenate([np.arange(at, at + len(tensor)) for at, tensor in visual])
        joined = torch.cat([tensor for _, tensor in visual]).to(model.device, embedded.dtype)
        embedded[to_device(where, model.device)] = joined
    return embedded
