"""Llama and Qwen layers for a GPU: a layer is its four matrix products, one call of attention and a few fused kernels.

Weights that read the same rows become one matrix: queries, keys and values; gate and up. The layer's own parameters are
made views of it, so that no memory is taken twice. Sums with the residual happen inside the product, in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from leverplus_models.engine.fused import rms_norm, rotate, silu_times
from leverplus_models.engine.packed_attention import packed_attention
from leverplus_models.engine.tree_attention import TreePass

ALIGNED = 64
"""Inner columns of an MLP are filled with zeros to a multiple of this: matrix units need rows that begin aligned."""


def decoder_layer(layer: Any, last: bool) -> Callable[..., Tensor]:
    """What `kernels` describes as a decoder layer under a tree, for a GPU; overwrites its input."""
    attention, norm, width = layer.self_attn, layer.input_layernorm, layer.self_attn.head_dim
    weight, bias = _joined([attention.q_proj, attention.k_proj, attention.v_proj])
    heads, key_heads = (m.weight.shape[0] // width for m in (attention.q_proj, attention.k_proj))
    post = _PostAttention(attention.o_proj, layer.post_attention_layernorm, layer.mlp)
    queries = heads * width

    def forward(hidden_states: Tensor, *args: Any, tree: TreePass | None = None, **kwargs: Any) -> Tensor:
        if tree is None:
            out: Tensor = type(layer).forward(layer, hidden_states, *args, **kwargs)
            return out
        x = hidden_states[0]
        cos, sin = (angles[0] for angles in kwargs["position_embeddings"])  # (N, width)
        chosen = tree.logit_rows if last else None
        normed = rms_norm(x, norm.weight, norm.variance_epsilon)
        both = tree.allocate(attention.layer_idx, x, key_heads, width)  # (N, 2, key_heads, width)
        query = x.new_empty(len(x if chosen is None else chosen), heads, width)
        if chosen is None:
            rotate(F.linear(normed, weight, bias), cos, sin, query, both)
        else:
            made = F.linear(normed, weight[queries:], None if bias is None else bias[queries:])
            rotate(made, cos, sin, None, both)
            x, normed, cos, sin = (tensor.index_select(0, chosen) for tensor in (x, normed, cos, sin))
            made = F.linear(normed, weight[:queries], None if bias is None else bias[:queries])
            rotate(made, cos, sin, query, None)
        attended = tree.attend(attention.layer_idx, query, attention.scaling, at_logits=chosen is not None)
        return post(x, attended.flatten(1))[None]

    return forward


def vision_block(block: Any, window: int | None) -> Callable[..., Tensor]:
    """A block of the vision tower; no window is longer than `window` patches (None: whole images)."""
    attention, norm = block.attn, block.norm1
    post = _PostAttention(attention.proj, block.norm2, block.mlp)

    def forward(
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        longest: int | None = None,
        **unused: Any,
    ) -> Tensor:
        x, (cos, sin) = hidden_states, position_embeddings
        made = F.linear(rms_norm(x, norm.weight, norm.variance_epsilon), attention.qkv.weight, attention.qkv.bias)
        query = x.new_empty(len(x), attention.num_heads, cos.shape[-1])
        both = x.new_empty(len(x), 2, *query.shape[1:])
        rotate(made, cos, sin, query, both)
        bound = min(len(x), window or longest or len(x))
        attended = packed_attention(
            query, both[:, 0], both[:, 1], cu_seqlens, cu_seqlens, (bound, bound), False, attention.scaling
        )
        return post(x, attended.flatten(1))

    return forward


class _PostAttention:
    """The half of a layer that follows attention, written over its input: x + out(attended), then + mlp(norm(x))."""

    def __init__(self, out: Any, norm: Any, mlp: Any) -> None:
        self.out, self.norm = out, norm
        self.gate_up, self.bias = _joined([mlp.gate_proj, mlp.up_proj], ALIGNED)
        self.down = _widened(mlp.down_proj, len(self.gate_up) // 2)
        self.down_bias = mlp.down_proj.bias

    def __call__(self, x: Tensor, attended: Tensor) -> Tensor:
        """(N, D) from (N, D) and (N, heads * width)."""
        _add_product(x, attended, self.out.weight, self.out.bias)
        inner = silu_times(F.linear(rms_norm(x, self.norm.weight, self.norm.variance_epsilon), self.gate_up, self.bias))
        return _add_product(x, inner, self.down, self.down_bias)


def _add_product(x: Tensor, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x += rows W^T + b."""
    x.addmm_(rows, weight.t())
    return x if bias is None else x.add_(bias)


@torch.no_grad()
def _joined(linears: Sequence[Any], multiple: int = 1) -> tuple[Tensor, Tensor | None]:
    """Weights and biases one below the other, each filled with zeros to a multiple of rows; theirs become views."""
    parts = [linear.weight for linear in linears]
    rows = [-(-len(part) // multiple) * multiple for part in parts]
    starts = [sum(rows[:n]) for n in range(len(rows))]
    width, whole = parts[0].shape[1], parts[0]
    step = parts[0].element_size() * width
    same = all(part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr() for part in parts)
    if not same or any(p.data_ptr() != whole.data_ptr() + s * step for p, s in zip(parts, starts, strict=True)):
        whole = whole.new_zeros(sum(rows), width)
        for linear, start in zip(linears, starts, strict=True):
            own = whole[start : start + len(linear.weight)]
            linear.weight.data = own.copy_(linear.weight)
    else:
        whole = whole.detach().as_strided((sum(rows), width), (width, 1))
    if linears[0].bias is None:
        return whole, None
    bias = whole.new_zeros(sum(rows))
    for linear, start in zip(linears, starts, strict=True):
        bias[start : start + len(linear.bias)] = linear.bias
    return whole, bias


@torch.no_grad()
def _widened(linear: Any, columns: int) -> Tensor:
    """The weight with zeros appended to `columns` columns; the layer's own becomes a view of it."""
    weight: Tensor = linear.weight
    if weight.shape[1] == columns:
        return weight.detach()
    if weight.stride(0) == columns:  # another engine of this model has done so
        return weight.detach().as_strided((len(weight), columns), (columns, 1))
    whole = weight.new_zeros(len(weight), columns)
    linear.weight.data = whole[:, : weight.shape[1]].copy_(weight)
    return whole
