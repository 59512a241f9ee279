"""Faster ways to compute the same layers on a CPU, lent to a model while the engine runs it.

In bfloat16 the linear layers go through oneDNN with weights laid out for the matrix unit once, where the stock path
lays them out at every call, and an MLP's activation and product are done while its matrix product is still in cache.
Norms, rotations and activations take half the passes over memory in either number format. Sums are taken in float32
as before; what is rounded to bfloat16 in between is a little less.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leverplus_models.tree_attention import TreePass

ROTARY = ("Qwen2_5_VLAttention", "Qwen2Attention", "LlamaAttention")
"""Attention layers that are projections, rotary positions over the whole head, and nothing else."""
PRE_NORM = ("Qwen2_5_VLDecoderLayer", "Qwen2DecoderLayer", "LlamaDecoderLayer")
"""Layers x + attention(norm(x)), then x + mlp(norm(x)), with such an attention."""
ROWS = 2048
"""For so many rows the layout of the weights is chosen; it serves any other number."""


INNER, ROWS_IN_CACHE = 6 << 20, 2 << 20
"""Bytes of an MLP's inner rows, and of rows in float32, that are made and used at once: they stay in a processor's
cache, where a pass over all of them would wait for memory."""


class Kernels:
    """The layers of `model` that have a faster way; no packed weights on a GPU or where memory is short.

    `read_alone`: under a tree that names the places which are read, the last layer gives these places alone. Nothing
    but their logits depends on its queries and its MLP.
    """

    def __init__(self, model: Any) -> None:
        self._faster: list[tuple[nn.Module, Callable[..., Any]]] = []
        on_cpu = model.device.type == "cpu" and model.dtype == torch.bfloat16 and _onednn_bf16()
        self.packs = packs = on_cpu and _weights(model) < _free_memory() // 2
        inside: set[nn.Module] = set()
        for module in model.modules():
            name = type(module).__name__
            if hasattr(module, "variance_epsilon") and name.endswith("RMSNorm"):
                self._faster.append((module, _norm(module)))
            elif name == "Qwen2_5_VisionPatchEmbed":
                self._faster.append((module, _patches(module)))
            elif name == "Qwen2_5_VLVisionAttention" and module.config._attn_implementation == "sdpa":
                self._faster.append((module, _vision_attention(module)))
            elif name in ROTARY:
                self._faster.append((module, _rotary_attention(module)))
            elif _gated(module):
                self._faster.append((module, _packed_mlp(module) if packs else _mlp(module)))
                inside |= {module.gate_proj, module.up_proj, module.down_proj}
        layers: Any = getattr(model.get_decoder(), "layers", None)
        self.read_alone = bool(layers) and type(layers[-1]).__name__ in PRE_NORM
        if self.read_alone:
            self._faster.append((layers[-1], _last_layer(layers[-1])))
        if packs:
            linears = [m for m in model.modules() if type(m) is nn.Linear and m not in inside]
            output = model.get_output_embeddings()  # read at few positions: not worth a copy
            self._faster += [(m, _linear(m)) for m in linears if m is not output]

    def fill(self, rows: int) -> int:
        """How many rows to run the model on for so many: oneDNN compiles a product anew for each number of rows, which
        takes as long as a few hundred of them, and so is given few numbers."""
        if not self.packs:
            return rows
        step = 16 if rows <= 256 else 64
        return -(-rows // step) * step

    @contextmanager
    def lent(self) -> Iterator[None]:
        """The model computes the faster way inside the block, and is untouched after it."""
        for module, forward in self._faster:
            vars(module)["forward"] = forward
        try:
            yield
        finally:
            for module, _ in self._faster:
                vars(module).pop("forward", None)


def _norm(module: Any) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        width = x.shape[-1]
        for rows, into in _in_cache(x.reshape(-1, width), out.view(-1, width)):
            wide = rows.float()
            length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            torch.mul(wide, torch.rsqrt(length * length / width + module.variance_epsilon), out=into)
            into.mul_(module.weight)
        return out

    return forward


def _patches(module: Any) -> Callable[[Tensor], Tensor]:
    """A convolution whose stride is its kernel sees each patch once: it is a matrix product."""

    def forward(x: Tensor) -> Tensor:
        weight = module.proj.weight.flatten(1)
        return F.linear(x.view(-1, weight.shape[1]).to(weight.dtype), weight, module.proj.bias)

    return forward


def _vision_attention(module: Any) -> Callable[..., Tensor]:
    """Windows of one length share a call of the stock attention, which takes them one by one."""

    def forward(
        hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **unused: Any
    ) -> Tensor:
        count, heads = len(hidden_states), module.num_heads
        qkv = module.qkv(hidden_states).view(count, 3, heads, -1)
        cos, sin = (angles[:, None, None] for angles in position_embeddings)
        turned = _turned(qkv[:, :2], cos, sin)  # (N, 2, H, W)
        parts = turned[:, 0], turned[:, 1], qkv[:, 2]
        out = qkv.new_empty(count, heads, qkv.shape[-1])
        for length, rows in _windows(tuple(cu_seqlens.tolist())):
            where = rows.to(out.device)
            query, key, value = (x[where].view(-1, length, *x.shape[1:]).transpose(1, 2) for x in parts)
            found = F.scaled_dot_product_attention(query, key, value, scale=module.scaling)  # (B, H, L, W)
            out[where] = found.transpose(1, 2).reshape(-1, *out.shape[1:])
        projected: Tensor = module.proj(out.view(count, -1))
        return projected

    return forward


@lru_cache(maxsize=64)
def _windows(borders: tuple[int, ...]) -> list[tuple[int, Tensor]]:
    """The rows of all windows of each length; `borders` are where windows begin and end."""
    by_length: dict[int, list[int]] = {}
    for first, end in pairwise(borders):
        by_length.setdefault(end - first, []).extend(range(first, end))
    return [(length, torch.tensor(rows)) for length, rows in by_length.items()]


def _rotary_attention(module: Any) -> Callable[..., Any]:
    """The layer under a tree; without one, the model's own."""

    def forward(hidden_states: Tensor, *args: Any, tree: TreePass | None = None, **kwargs: Any) -> Any:
        if tree is None:
            return type(module).forward(module, hidden_states, *args, **kwargs)
        angles = kwargs["position_embeddings"]
        query = _projected(module, "q", hidden_states, angles)
        key, value = _projected(module, "k", hidden_states, angles), _projected(module, "v", hidden_states)
        out = tree.attend(module.layer_idx, query, key, value, module.scaling)
        return module.o_proj(out.flatten(1)[None]), None

    return forward


def _last_layer(layer: Any) -> Callable[..., Any]:
    """Keys and values of all places, the rest of the layer for those that are read: (1, N, D) -> (1, R, D)."""
    attention = layer.self_attn

    def forward(hidden_states: Tensor, *args: Any, tree: TreePass | None = None, **kwargs: Any) -> Any:
        if tree is None or tree.read is None:
            return type(layer).forward(layer, hidden_states, *args, **kwargs, **({"tree": tree} if tree else {}))
        normed, angles, read = layer.input_layernorm(hidden_states), kwargs["position_embeddings"], tree.read
        key, value = _projected(attention, "k", normed, angles), _projected(attention, "v", normed)
        chosen = [tensor.index_select(1, read) for tensor in (normed, *angles, hidden_states)]
        query = _projected(attention, "q", chosen[0], (chosen[1], chosen[2]))
        out = tree.attend(attention.layer_idx, query, key, value, attention.scaling, of_readers=True)
        hidden = chosen[3] + attention.o_proj(out.flatten(1)[None])
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden))

    return forward


def _projected(module: Any, which: str, x: Tensor, angles: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """(N, heads, width) queries, keys or values of x (1, N, D), rotated by `angles` (1, N, width) where given."""
    heads: Tensor = getattr(module, f"{which}_proj")(x).view(x.shape[1], -1, module.head_dim)
    return heads if angles is None else _turned(heads, angles[0][0, :, None], angles[1][0, :, None])


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x * cos + rotate_half(x) * sin, (N, ..., width), in half the passes, and in the angles' number format."""
    half = x.shape[-1] // 2
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for rows, angle, slope, into in _in_cache(x, cos, sin, out):
        wide, same = rows.to(angle.dtype), rows.dtype == angle.dtype
        turned = torch.mul(wide, angle, out=into if same else None)
        turned[..., :half].addcmul_(wide[..., half:], slope[..., :half], value=-1)
        turned[..., half:].addcmul_(wide[..., :half], slope[..., half:])
        if not same:
            into.copy_(turned)
    return out


def _in_cache(x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """`x` and `others` some rows at a time, so that what is made of them stays in a processor's cache."""
    at_once = max(1, ROWS_IN_CACHE * len(x) // max(x.numel() * 4, 1))
    yield from zip(*(tensor.split(at_once) for tensor in (x, *others)), strict=True)


def _linear(module: Any) -> Callable[[Tensor], Tensor]:
    weight, run = _packed(module), torch.ops.mkldnn._linear_pointwise

    def forward(x: Tensor) -> Tensor:
        out: Tensor = run(x, weight, module.bias, "none", [], "")
        return out

    return forward


def _mlp(module: Any) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        hidden = F.silu(module.gate_proj(x), inplace=True).mul_(module.up_proj(x))
        out: Tensor = module.down_proj(hidden)
        return out

    return forward


def _packed_mlp(module: Any) -> Callable[[Tensor], Tensor]:
    gate, up, down = (_packed(m) for m in (module.gate_proj, module.up_proj, module.down_proj))
    run = torch.ops.mkldnn._linear_pointwise
    at_once = max(128, INNER // module.gate_proj.weight[:, 0].nbytes)

    def part(x: Tensor) -> Tensor:
        hidden = run(x, gate, module.gate_proj.bias, "swish", [], "")
        hidden = run.binary(x, hidden, up, module.up_proj.bias, "mul")
        out: Tensor = run(hidden, down, module.down_proj.bias, "none", [], "")
        return out

    def forward(x: Tensor) -> Tensor:
        if x.shape[-2] <= at_once:
            return part(x)
        parts = -(-x.shape[-2] // at_once)
        return torch.cat([part(rows) for rows in x.chunk(parts, dim=-2)], dim=-2)

    return forward


def _gated(module: nn.Module) -> bool:
    """Whether this is down(silu(gate(x)) * up(x)), as in Llama and Qwen."""
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    silu = type(getattr(module, "act_fn", None)).__name__ in ("SiLU", "SiLUActivation")
    return silu and all(type(part) is nn.Linear for part in parts)


def _packed(module: Any) -> Any:
    return torch.ops.mkldnn._reorder_linear_weight(module.weight.detach(), ROWS)


def _onednn_bf16() -> bool:
    """Whether this torch and this processor have oneDNN's bfloat16 products."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _weights(model: Any) -> int:
    return sum(m.weight.nbytes for m in model.modules() if type(m) is nn.Linear)


def _free_memory() -> int:
    """Bytes that this machine could still give; unknown counts as plenty."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 62
