"""Attention over a tree of shared prefixes, packed into one sequence without padding.

The tokens of many branches stand behind each other in one row of a transformers model, so that every linear layer
runs over the necessary tokens and no others. Only attention knows the tree: the queries of a node meet the keys and
values of its path, gathered by row number, nodes of like shape in one padded call. Sharing keys and values between
branches is what Hydragen (Juravsky et al. 2024, arXiv:2402.05099) and tree attention (SpecInfer, Miao et al. 2023,
arXiv:2305.09781) do on GPUs; here it is done with the stock scaled dot-product attention on any device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

from leverplus_models.prefix_tree import Ints, buckets

NAME = "leverplus_tree"
SPARE = 1 << 14
"""Query-key products of padding that cost less than one more call of attention."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """How many rows the model is run on, and how many keys a call of attention has, for so many that are needed.

    Where bfloat16 goes through a CPU's matrix unit they are `filled` up: oneDNN compiles a product anew for each number
    of rows, which takes as long as a few hundred of them, and attention to an odd number of keys takes longer.
    """

    filled: bool = False

    def rows(self, count: int) -> int:
        return _multiple(count, 16 if count <= 256 else 64) if self.filled else count

    def keys(self, count: int) -> int:
        return _multiple(count, 32) if self.filled else count


def _multiple(count: int, of: int) -> int:
    return -(-count // of) * of


AS_THEY_ARE = Shapes()


@dataclass(frozen=True, slots=True)
class Bucket:
    """B nodes padded on the left to Q queries and K keys: `queries` (B * Q,), `keys` (B * K,) row numbers.

    `mask` (1 or B, 1, S * Q, K) is added to the products, S the heads that share keys; `real` are the places of true
    queries in B * Q, and `rows` theirs in the packed sequence.
    """

    size: int
    queries: Tensor
    keys: Tensor
    mask: Tensor
    real: Tensor | None
    rows: Tensor


@dataclass(slots=True)
class TreePass:
    """One pass of a packed stretch of a tree: which keys each query sees, and which keys and values to hold.

    `held[layer]` is what earlier passes left, (M, 2, heads, width): rows 0 to M - 1 of the row numbers; the tokens of
    this pass follow. `keep` names the rows that later passes need (None: all); the pass leaves them in `kept`.

    The model is run on `shapes.rows(count)` rows, of which the first `count` are tokens of the pass.
    """

    buckets: Sequence[Bucket]
    held: Mapping[int, Tensor]
    keep: Tensor | None
    count: int
    shapes: Shapes
    read: Tensor | None = None
    """(R,) places whose logits are read, where the last layer is to answer for these alone; filled up, too."""
    readers: Sequence[Bucket] = ()
    kept: dict[int, Tensor] = field(default_factory=dict)
    _both: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        own: Sequence[Ints],
        paths: Sequence[Ints],
        held: Mapping[int, Tensor],
        keep: Ints | None,
        model: Any,
        like: bool = True,
        read: Mapping[int, Ints] | None = None,
        shapes: Shapes = AS_THEY_ARE,
    ) -> TreePass:
        """`own[i]` are the row numbers of node i's tokens, `paths[i]` those of its whole path, its own at the end.

        `read` gives the places whose logits are read, with the path of each, itself at the end.
        """
        text = model.config.get_text_config()
        share = text.num_attention_heads // (getattr(text, "num_key_value_heads", None) or text.num_attention_heads)
        how = (model.dtype, model.device, share, like, shapes)
        device = model.device
        offset = len(next(iter(held.values()), ()))
        made = list(_buckets([rows - offset for rows in own], paths, *how))
        kept = None if keep is None else torch.from_numpy(keep).to(device)
        count = sum(map(len, own))
        if not read:
            return cls(made, held, kept, count, shapes)
        numbers = [np.array([n]) for n in range(len(read))]
        readers = list(_buckets(numbers, list(read.values()), *how))
        places = torch.from_numpy(filled(np.array(list(read)), shapes)).to(device)
        return cls(made, held, kept, count, shapes, places, readers)

    def room(self, layer: int, x: Tensor, groups: int, width: int) -> Tensor:
        """(N, 2, groups, width), where a layer puts the keys and values of its rows `x` (N, D) before they attend."""
        before = self._before(layer)
        both = self._both[layer] = x.new_empty(before + len(x), 2, groups, width)
        if before:
            both[:before] = self.held[layer]
        return both[before:]

    def _before(self, layer: int) -> int:
        return len(self.held.get(layer, ()))

    def attend(self, layer: int, query: Tensor, scale: float | None, of_readers: bool = False) -> Tensor:
        """(N, heads, width) from query (N, heads, width), with the keys and values that are in the `room`.

        `of_readers`: the query is (R, heads, width), of the places that are read.
        """
        heads, count = query.shape[1], self.count
        both = self._both.pop(layer)
        groups, width = both.shape[2:]
        self.kept[layer] = both[: self._before(layer) + count] if self.keep is None else both.index_select(0, self.keep)
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        out[sum(len(b.rows) for b in self.readers) if of_readers else count :] = 0
        query = query.contiguous()
        share = heads // groups
        for b in self.readers if of_readers else self.buckets:
            # Heads that share keys lie behind each other as more queries: keys need no copies.
            q = query.index_select(0, b.queries).view(b.size, -1, groups, share, width)
            q = q.permute(0, 2, 3, 1, 4).reshape(b.size, groups, -1, width)  # (B, G, S * Q, W)
            k, v = (
                both.index_select(0, b.keys).view(b.size, -1, 2, groups, width).permute(2, 0, 3, 1, 4)
            )  # (B, G, K, W)
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=b.mask, scale=scale)
            found = found.view(b.size, groups, share, -1, width).permute(0, 3, 1, 2, 4).reshape(-1, heads, width)
            out.index_copy_(0, b.rows, found if b.real is None else found.index_select(0, b.real))
        return out


def filled(rows: Ints, shapes: Shapes) -> Ints:
    """The last axis of `rows` with zeros at its end, up to the number of rows that the model is to be run on."""
    spare = shapes.rows(rows.shape[-1]) - rows.shape[-1]
    return np.pad(rows, [(0, 0)] * (rows.ndim - 1) + [(0, spare)])


def _buckets(
    own: Sequence[Ints],
    paths: Sequence[Ints],
    dtype: torch.dtype,
    device: torch.device,
    share: int,
    like: bool,
    shapes: Shapes,
) -> Iterator[Bucket]:
    for numbers in buckets([(len(o), len(p)) for o, p in zip(own, paths, strict=True)], SPARE, like):
        yield _bucket([own[i] for i in numbers], [paths[i] for i in numbers], dtype, device, share, shapes)


def _bucket(
    own: Sequence[Ints], paths: Sequence[Ints], dtype: torch.dtype, device: torch.device, share: int, shapes: Shapes
) -> Bucket:
    size, q, k = len(own), max(map(len, own)), shapes.keys(max(map(len, paths)))
    queries = np.zeros((size, q), dtype=np.int64)
    keys = np.zeros((size, k), dtype=np.int64)
    real = np.zeros((size, q), dtype=bool)
    first = np.zeros(size, dtype=np.int64)
    for n, (o, p) in enumerate(zip(own, paths, strict=True)):
        queries[n, q - len(o) :] = o
        real[n, q - len(o) :] = True
        keys[n, k - len(p) :] = p
        first[n] = k - len(p)
    # Right-aligned: query i sees key j up to its own place, and no padding. The smallest number instead of minus
    # infinity, so that a padding query, which sees nothing, makes no NaN.
    seen = np.arange(k)[None, :] <= np.arange(k - q, k)[:, None]  # (Q, K)
    allowed = seen[None] if not first.any() else seen[None] & (np.arange(k) >= first[:, None])[:, None]
    mask = torch.zeros((len(allowed), 1, q, k), dtype=dtype, device=device)
    mask.masked_fill_(torch.from_numpy(~allowed[:, None]).to(device), torch.finfo(dtype).min)
    mask = mask if share == 1 else mask.repeat(1, 1, share, 1)
    whole = bool(real.all())

    def on(array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array.reshape(-1))).to(device)

    return Bucket(size, on(queries), on(keys), mask, None if whole else on(np.flatnonzero(real)), on(queries[real]))


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    tree: TreePass | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer of a model whose attention is `leverplus_tree`."""
    if tree is None:
        raise RuntimeError("tree attention was called without a tree")
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # (N, heads, width)
    room = tree.room(module.layer_idx, key.flatten(1), *key.shape[1:])
    room[:, 0], room[:, 1] = key, value
    return tree.attend(module.layer_idx, query, scaling)[None], None


AttentionInterface.register(NAME, _attention)


@contextmanager
def tree_attention(model: Any) -> Iterator[None]:
    """Run the layers of `model`'s language part with tree attention inside the block."""
    configs = {id(m.config): m.config for m in model.get_decoder().modules() if hasattr(m, "layer_idx")}.values()
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name


def fits(model: Any) -> bool:
    """Whether the layers of `model` attend through transformers' interface, each to all that precedes."""
    config = model.config.get_text_config()
    types = set(getattr(config, "layer_types", None) or ["full_attention"])
    sliding = types != {"full_attention"} or (
        not hasattr(config, "layer_types") and getattr(config, "sliding_window", None) is not None
    )
    return bool(getattr(model, "_supports_attention_backend", False)) and not sliding
