"""Attention over a tree of shared prefixes, packed into one sequence without padding.

The tokens of many branches are concatenated into one row of a transformers model, so that every linear layer runs over
the distinct tokens only. Attention alone depends on the tree: the queries of a node attend to the keys and values of
its path, gathered by slot. Sharing keys and values between branches is what
Hydragen (Juravsky et al. 2024, arXiv:2402.05099) and tree attention (SpecInfer, Miao et al. 2023, arXiv:2305.09781) do
on GPUs. Where a kernel takes sequences of different lengths (`packed_attention`), a pass is one call of it, without
padding; else nodes of similar shape share a padded call of the stock scaled dot-product attention, on any device.

A *slot* is a row number of the keys and values: those of earlier passes come first, then the tokens of this pass.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface

from leverplus_models.engine.device import to_device
from leverplus_models.engine.packed_attention import packed_attention, supports_packed
from leverplus_models.engine.prefix_tree import shape_buckets
from leverplus_models.engine.rows import Ints

NAME = "leverplus_tree"
SPARE = 1 << 14
"""Padded query-key products that cost less than one more call of attention."""


@dataclass(frozen=True, slots=True)
class Padding:
    """Rounds the number of rows of a pass, and of keys of an attention call, up.

    On by `rounded` for bfloat16 on a CPU's matrix unit: oneDNN compiles a product for each number of rows, which takes
    as long as a few hundred rows, and attention to an odd number of keys is slower. On for padded attention on a GPU
    too, whose kernels want an aligned mask.
    """

    rounded: bool = False

    def rows(self, count: int) -> int:
        """The number of query rows that `count` is padded to."""
        return _round_up(count, 16 if count <= 256 else 64) if self.rounded else count

    def keys(self, count: int) -> int:
        """The number of keys that `count` is padded to."""
        return _round_up(count, 32) if self.rounded else count

    def padded(self, array: Ints) -> Ints:
        """`array` with zeros appended to its last axis, up to `rows` of its length."""
        spare = self.rows(array.shape[-1]) - array.shape[-1]
        return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, spare)])


def _round_up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


NO_PADDING = Padding()


@dataclass(frozen=True, slots=True)
class Bucket:
    """B nodes padded on the left to Q queries and K keys.

    `queries` (B * Q,) are positions in the pass, `keys` (B * K,) slots. `mask` (1 or B, 1, S * Q, K) is added to the
    scores, S the query heads per key head. `real` are the positions of true queries in B * Q (None: all), `rows` (R,)
    theirs in the pass.
    """

    size: int
    queries: Tensor
    keys: Tensor
    mask: Tensor
    real: Tensor | None
    rows: Tensor


@dataclass(frozen=True, slots=True)
class Segments:
    """The nodes of a pass, in order, for attention without padding.

    `keys` are the slots of all paths, one after another; `query_ends` and `key_ends` (nodes + 1,) are where the nodes'
    tokens and paths end, from 0; `longest` are the longest of each.
    """

    keys: Tensor
    query_ends: Tensor
    key_ends: Tensor
    longest: tuple[int, int]

    @classmethod
    def of(cls, own: Sequence[Ints], paths: Sequence[Ints], device: torch.device) -> Segments:
        """Of nodes whose tokens follow each other in the pass."""
        queries, keys = ([len(slots) for slots in some] for some in (own, paths))
        query_ends, key_ends = (
            to_device(np.cumsum([0, *lengths], dtype=np.int32), device) for lengths in (queries, keys)
        )
        return cls(to_device(np.concatenate(paths), device), query_ends, key_ends, (max(queries), max(keys)))

    def attend(self, query: Tensor, both: Tensor, scale: float | None) -> Tensor:
        """(N, heads, width) from query (N, heads, width) and both (M, 2, key heads, width), by slot."""
        key, value = both.index_select(0, self.keys).unbind(1)
        return packed_attention(query, key, value, self.query_ends, self.key_ends, self.longest, True, scale)


@dataclass(slots=True)
class TreePass:
    """One forward pass over a chunk of the tree: what each query attends to, and which keys and values stay.

    `past[layer]` (M, 2, heads, width) are keys and values of earlier passes, slots 0 to M - 1. `keep` names the slots
    that later passes need (None: all); `present[layer]` holds them after the pass. The model runs on
    `padding.rows(count)` rows, of which the first `count` are tokens.
    """

    buckets: Sequence[Bucket] | Segments
    past: Mapping[int, Tensor]
    keep: Tensor | None
    count: int
    padding: Padding
    logit_rows: Tensor | None = None
    """(R,) rows whose logits are needed, if the last layer is to run for these alone; padded as well."""
    logit_buckets: Sequence[Bucket] | Segments = ()
    present: dict[int, Tensor] = field(default_factory=dict)
    _keys_values: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        own: Sequence[Ints],
        paths: Sequence[Ints],
        past: Mapping[int, Tensor],
        keep: Ints | None,
        model: Any,
        bucket_by_length: bool = True,
        logit_paths: Mapping[int, Ints] | None = None,
        padding: Padding = NO_PADDING,
    ) -> TreePass:
        """`own[i]` are the slots of node i's tokens, `paths[i]` those of its whole path, its own at the end.

        `logit_paths` gives the path of each row whose logits are needed, that row's slot at the end.
        """
        text = model.config.get_text_config()
        group = text.num_attention_heads // (getattr(text, "num_key_value_heads", None) or text.num_attention_heads)
        offset = len(next(iter(past.values()), ()))
        packed = supports_packed(model)

        def buckets(own: Sequence[Ints], paths: Sequence[Ints]) -> Sequence[Bucket] | Segments:
            if packed:
                return Segments.of(own, paths, model.device)
            shapes = [(len(o), len(p)) for o, p in zip(own, paths, strict=True)]
            return [
                _bucket([own[i] for i in numbers], [paths[i] for i in numbers], model, group, padding)
                for numbers in shape_buckets(shapes, SPARE, bucket_by_length)
            ]

        made = cls(
            buckets([slots - offset for slots in own], paths),
            past,
            None if keep is None else to_device(keep, model.device),
            sum(map(len, own)),
            padding,
        )
        if logit_paths:
            made.logit_buckets = buckets([np.array([n]) for n in range(len(logit_paths))], list(logit_paths.values()))
            made.logit_rows = to_device(padding.padded(np.array(list(logit_paths))), model.device)
        return made

    def allocate(self, layer: int, x: Tensor, heads: int, width: int) -> Tensor:
        """(N, 2, heads, width): where a layer writes the keys and values of its rows `x` (N, D) before `attend`."""
        before = self._past_size(layer)
        both = self._keys_values[layer] = x.new_empty(before + len(x), 2, heads, width)
        if before:
            both[:before] = self.past[layer]
        return both[before:]

    def _past_size(self, layer: int) -> int:
        return len(self.past.get(layer, ()))

    def attend(self, layer: int, query: Tensor, scale: float | None, at_logits: bool = False) -> Tensor:
        """(N, heads, width) from query (N, heads, width), with the keys and values written by `allocate`'s caller.

        With `at_logits` the query is (R, heads, width), of the rows `logit_rows`.
        """
        heads, count = query.shape[1], self.count
        both = self._keys_values.pop(layer)
        key_heads, width = both.shape[2:]
        whole = both[: self._past_size(layer) + count]
        self.present[layer] = whole if self.keep is None else both.index_select(0, self.keep)
        query, buckets = query.contiguous(), self.logit_buckets if at_logits else self.buckets
        if isinstance(buckets, Segments):
            return buckets.attend(query, both, scale)
        out = torch.empty_like(query)
        out[sum(len(b.rows) for b in buckets) if at_logits else count :] = 0
        group = heads // key_heads
        for b in buckets:
            # Query heads that share a key head become more queries of one head: keys and values are not copied.
            q = query.index_select(0, b.queries).view(b.size, -1, key_heads, group, width)
            q = q.permute(0, 2, 3, 1, 4).reshape(b.size, key_heads, -1, width)  # (B, G, S * Q, W)
            k, v = (
                both.index_select(0, b.keys).view(b.size, -1, 2, key_heads, width).permute(2, 0, 3, 1, 4)
            )  # (B, G, K, W)
            found = F.scaled_dot_product_attention(q, k, v, attn_mask=b.mask, scale=scale)
            found = found.view(b.size, key_heads, group, -1, width).permute(0, 3, 1, 2, 4).reshape(-1, heads, width)
            out.index_copy_(0, b.rows, found if b.real is None else found.index_select(0, b.real))
        return out


def _bucket(own: Sequence[Ints], paths: Sequence[Ints], model: Any, group: int, padding: Padding) -> Bucket:
    size, q, k = len(own), max(map(len, own)), padding.keys(max(map(len, paths)))
    queries = np.zeros((size, q), dtype=np.int64)
    keys = np.zeros((size, k), dtype=np.int64)
    real = np.zeros((size, q), dtype=bool)
    first = np.zeros(size, dtype=np.int64)
    for n, (o, p) in enumerate(zip(own, paths, strict=True)):
        queries[n, q - len(o) :] = o
        real[n, q - len(o) :] = True
        keys[n, k - len(p) :] = p
        first[n] = k - len(p)
    # Right-aligned: query i sees the keys up to its own position and no padding. The smallest number instead of minus
    # infinity, so that a padding query, which sees nothing, does not become NaN.
    seen = np.arange(k)[None, :] <= np.arange(k - q, k)[:, None]  # (Q, K)
    visible = seen[None] if not first.any() else seen[None] & (np.arange(k) >= first[:, None])[:, None]
    mask = torch.zeros((len(visible), 1, q, k), dtype=model.dtype, device=model.device)
    mask.masked_fill_(to_device(~visible[:, None], model.device), torch.finfo(model.dtype).min)
    mask = mask if group == 1 else mask.repeat(1, 1, group, 1)

    def flat(array: Any) -> Tensor:
        return to_device(array.reshape(-1), model.device)

    true = None if real.all() else flat(np.flatnonzero(real))
    return Bucket(size, flat(queries), flat(keys), mask, true, flat(queries[real]))


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
    """What transformers calls in each layer of a model whose attention implementation is `leverplus_tree`."""
    if tree is None:
        raise RuntimeError("tree attention was called without a tree")
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # (N, heads, width)
    keys_values = tree.allocate(module.layer_idx, key.flatten(1), *key.shape[1:])
    keys_values[:, 0], keys_values[:, 1] = key, value
    return tree.attend(module.layer_idx, query, scaling)[None], None


AttentionInterface.register(NAME, _attention)


@contextmanager
def tree_attention(model: Any) -> Iterator[None]:
    """Inside the block the layers of `model`'s language part use tree attention."""
    configs = {id(m.config): m.config for m in model.get_decoder().modules() if hasattr(m, "layer_idx")}.values()
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = NAME
    # cuDNN's attention builds a plan for every shape it has not seen, which takes longer than the attention itself.
    kept = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    try:
        with sdpa_kernel(kept) if model.device.type == "cuda" else nullcontext():
            yield
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation = name


def tree_window(model: Any) -> int:
    """Tokens of the longest row in which each token of `model` attends to all earlier ones; 0 without tree attention.

    The layers must attend through transformers' attention interface. A sliding window, or a chunk, is none to a row
    that is no longer.
    """
    config = model.config.get_text_config()
    sliding, chunk = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    plain = ["full_attention" if sliding is None else "sliding_attention"]  # of a model that does not tell layers apart
    bounds = {"full_attention": sys.maxsize, "sliding_attention": sliding, "chunked_attention": chunk}
    windows = [bounds.get(kind) for kind in getattr(config, "layer_types", None) or plain]
    return min(window or 0 for window in windows) if getattr(model, "_supports_attention_backend", False) else 0
