"""Attention of sequences of different lengths, packed one after another: nothing is padded, and no mask is built.

On a GPU it is the kernel of FlashAttention-2 (Dao 2023, arXiv:2307.08691) that is part of torch. It has no plan to be
built for a shape, so that a batch of a new shape costs what any other does. Query heads that share a key head need no
copies of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

WIDEST_HEAD = 256


def supports_packed(model: Any) -> bool:
    """Whether the kernel runs this model: bfloat16 or float16 on an Nvidia GPU of 2020 (Ampere) or later."""
    text, device = model.config.get_text_config(), model.device
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if device.type != "cuda" or model.dtype not in (torch.bfloat16, torch.float16):
        return False
    flash = torch.version.cuda is not None and torch.backends.cuda.is_flash_attention_available()
    return flash and torch.cuda.get_device_capability(device) >= (8, 0) and width <= WIDEST_HEAD and width % 8 == 0


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    longest: tuple[int, int],
    causal: bool,
    scale: float | None,
) -> Tensor:
    """(N, heads, width): sequence i's queries `query_ends[i]` to `query_ends[i + 1]` attend to its keys.

    query (N, heads, width); key and value (M, key heads, width); the ends are int32, from 0; `longest` bounds the
    queries and the keys of a sequence. With `causal` the last query sees all keys, the one before it all but the last.
    """
    if query.is_cuda:
        out: Tensor = torch.ops.aten._flash_attention_forward(
            query, key, value, query_ends, key_ends, *longest, 0.0, causal, False, scale=scale
        )[0]
        return out
    made = []
    borders = zip(query_ends.tolist(), query_ends.tolist()[1:], key_ends.tolist(), key_ends.tolist()[1:], strict=False)
    for first, end, first_key, end_key in borders:
        q, k, v = (
            tensor[None].transpose(1, 2)
            for tensor in (query[first:end], key[first_key:end_key], value[first_key:end_key])
        )
        seen = torch.ones(end - first, end_key - first_key, dtype=torch.bool)
        seen = seen.tril(end_key - first_key - (end - first)) if causal else seen
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=True)
        made.append(found[0].transpose(0, 1))
    return torch.cat(made)
