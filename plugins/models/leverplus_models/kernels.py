"""Faster ways to compute the same layers on a CPU, lent to a model while the engine runs it.

A layer's rows go through it some at a time, so that what its norms, rotations and MLP make of them is used while it is
in the processor's cache; attention alone sees all rows. In bfloat16 the products go through oneDNN with weights laid
out for the matrix unit once, where the stock path lays them out at every call, and take activations, products and sums
that follow into the same pass. Sums are taken in float32 as before; what is rounded to bfloat16 in between is a little
less.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leverplus_models.tree_attention import Shapes, TreePass

ROTARY = ("Qwen2_5_VLAttention", "Qwen2Attention", "LlamaAttention")
"""Attention layers that are projections, rotary positions over the whole head, and nothing else."""
PRE_NORM = ("Qwen2_5_VLDecoderLayer", "Qwen2DecoderLayer", "LlamaDecoderLayer")
"""Layers x + attention(norm(x)), then x + mlp(norm(x)), with such an attention."""
LAYOUT_ROWS = 2048
"""For so many rows the layout of the weights is chosen; it serves any other number."""
INNER, WIDE = 6 << 20, 4 << 20
"""Bytes of an MLP's inner rows, and of rows in float32, that are made and used at once: they stay in a processor's
cache, where a pass over all of them would wait for memory."""
FEWEST = 128
"""Rows at once, however wide."""
Rows = Callable[[Tensor], Tensor]


class Kernels:
    """The layers of `model` that have a faster way; no packed weights on a GPU or where memory is short.

    `read_alone`: under a tree that names the places which are read, the last layer gives these places alone. Nothing
    but their logits depends on its queries and its MLP.
    """

    def __init__(self, model: Any) -> None:
        self._faster: list[tuple[nn.Module, Callable[..., Any]]] = []
        on_cpu = model.device.type == "cpu" and model.dtype == torch.bfloat16 and _onednn_bf16()
        packs = on_cpu and _weights(model) < _free_memory() // 2
        self.shapes = Shapes(filled=packs)
        layers = list(getattr(model.get_decoder(), "layers", ()))
        inside: set[nn.Module] = set()
        for module in model.modules():
            name = type(module).__name__
            if hasattr(module, "variance_epsilon") and name.endswith("RMSNorm"):
                self._faster.append((module, _norm(module)))
            elif name == "Qwen2_5_VisionPatchEmbed":
                self._faster.append((module, _patches(module)))
            elif name == "Qwen2_5_VLVisionBlock" and module.attn.config._attn_implementation == "sdpa":
                self._faster.append((module, _vision_block(module, packs)))
                inside |= set(module.modules())
            elif _known(module):
                self._faster.append((module, _layer(module, module is layers[-1], packs)))
                inside |= set(module.modules())
        self.read_alone = bool(layers) and _known(layers[-1])
        if packs:
            linears = [m for m in model.modules() if type(m) is nn.Linear and m not in inside]
            output = model.get_output_embeddings()  # read at few positions: not worth a copy
            self._faster += [(m, _Product(m, packs)) for m in linears if m is not output]

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


class _Product:
    """x W^T + b of a linear layer, and what may follow in the same pass."""

    def __init__(self, linear: Any, packs: bool) -> None:
        self.packs, self.bias = packs, linear.bias
        self.weight = _packed(linear.weight) if packs else linear.weight

    def __call__(self, x: Tensor) -> Tensor:
        if not self.packs:
            return F.linear(x, self.weight, self.bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return out

    def silu(self, x: Tensor) -> Tensor:
        """silu(x W^T + b)."""
        if not self.packs:
            return F.silu(self(x), inplace=True)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "swish", [], "")
        return out

    def times(self, x: Tensor, y: Tensor) -> Tensor:
        """(x W^T + b) * y; `y` is used up."""
        if not self.packs:
            return y.mul_(self(x))
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, y, self.weight, self.bias, "mul")
        return out

    def plus(self, x: Tensor, y: Tensor) -> Tensor:
        """x W^T + b + y."""
        if not self.packs:
            return self(x).add_(y)
        out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, y, self.weight, self.bias, "add")
        return out


def _norm(module: Any) -> Rows:
    weight = module.weight.detach().float()

    def forward(x: Tensor) -> Tensor:
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = torch.rsqrt(length * length / x.shape[-1] + module.variance_epsilon)
        normed = wide * scale if wide is x else wide.mul_(scale)
        return normed.mul_(weight).to(x.dtype)

    return forward


def _patches(module: Any) -> Rows:
    """A convolution whose stride is its kernel sees each patch once: it is a matrix product."""

    def forward(x: Tensor) -> Tensor:
        weight = module.proj.weight.flatten(1)
        return F.linear(x.view(-1, weight.shape[1]).to(weight.dtype), weight, module.proj.bias)

    return forward


class _Second:
    """The half of a layer that follows attention: h = x + out(attended), then h + mlp(norm(h))."""

    def __init__(self, out: Any, norm: Any, mlp: Any, packs: bool) -> None:
        self.out = _Product(out, packs)
        self.norm = _norm(norm)
        self.gate, self.up, self.down = (_Product(m, packs) for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        self.at_once = _at_once(INNER, mlp.gate_proj.weight[:, 0].nbytes, mlp.gate_proj.weight.device)

    def __call__(self, x: Tensor, attended: Tensor) -> Tensor:
        """(N, D) from (N, D) and (N, heads * width)."""
        made = []
        for rows, found in _in_cache(self.at_once, x, attended):
            hidden = self.out.plus(found, rows)
            normed = self.norm(hidden)
            made.append(self.down.plus(self.up.times(normed, self.gate.silu(normed)), hidden))
        return made[0] if len(made) == 1 else torch.cat(made)


def _layer(layer: Any, last: bool, packs: bool) -> Callable[..., Tensor]:
    """A decoder layer under a tree, (1, N, D) -> (1, N, D); without one, the model's own.

    The `last` layer gives the places that are read alone, if the tree names them: (1, N, D) -> (1, R, D).
    """
    attention, width = layer.self_attn, layer.self_attn.head_dim
    norm = _norm(layer.input_layernorm)
    queries, keys, values = (_Product(m, packs) for m in (attention.q_proj, attention.k_proj, attention.v_proj))
    second = _Second(attention.o_proj, layer.post_attention_layernorm, layer.mlp, packs)
    heads, groups = (m.weight.shape[0] // width for m in (attention.q_proj, attention.k_proj))
    at_once = _at_once(WIDE, 4 * width * heads, attention.q_proj.weight.device)

    def forward(hidden_states: Tensor, *args: Any, tree: TreePass | None = None, **kwargs: Any) -> Tensor:
        if tree is None:
            out: Tensor = type(layer).forward(layer, hidden_states, *args, **kwargs)
            return out
        x = hidden_states[0]
        cos, sin = (angles[0, :, None] for angles in kwargs["position_embeddings"])  # (N, 1, width)
        read = tree.read if last else None
        query = x.new_empty(len(x if read is None else read), heads, width)
        both = tree.room(attention.layer_idx, x, groups, width)  # (N, 2, groups, width)
        for part in _in_cache(at_once, x, cos, sin, both, *([query] if read is None else [])):
            rows, angle, slope, into, *asking = part
            normed = norm(rows)
            into[:, 0] = _turned(keys(normed).view(-1, groups, width), angle, slope)
            into[:, 1] = values(normed).view(-1, groups, width)
            for found in asking:
                _turned(queries(normed).view(found.shape), angle, slope, found)
        if read is not None:
            x, cos, sin = (tensor.index_select(0, read) for tensor in (x, cos, sin))
            _turned(queries(norm(x)).view(query.shape), cos, sin, query)
        attended = tree.attend(attention.layer_idx, query, attention.scaling, of_readers=read is not None)
        return second(x, attended.flatten(1))[None]

    return forward


def _known(layer: Any) -> bool:
    """Whether `_layer` knows this layer's order."""
    return type(layer).__name__ in PRE_NORM and type(layer.self_attn).__name__ in ROTARY and _gated(layer.mlp)


def _vision_block(block: Any, packs: bool) -> Callable[..., Tensor]:
    """Windows of one length share a call of the stock attention, which takes them one by one."""
    attention = block.attn
    norm, project = _norm(block.norm1), _Product(attention.qkv, packs)
    second = _Second(attention.proj, block.norm2, block.mlp, packs)
    at_once = _at_once(WIDE, 8 * attention.proj.weight.shape[0], attention.proj.weight.device)

    def forward(
        hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **unused: Any
    ) -> Tensor:
        x = hidden_states
        cos, sin = (angles[:, None, None] for angles in position_embeddings)
        parts = x.new_empty(3, len(x), attention.num_heads, cos.shape[-1])
        for rows, angle, slope, into in _in_cache(at_once, x, cos, sin, parts.transpose(0, 1)):
            made = project(norm(rows)).view(into.shape)
            into[:, :2] = _turned(made[:, :2], angle, slope)
            into[:, 2] = made[:, 2]
        out = torch.empty_like(parts[0])
        for length, rows in _windows(tuple(cu_seqlens.tolist())):
            where = rows.to(x.device)
            query, key, value = parts.index_select(1, where).view(3, -1, length, *out.shape[1:]).transpose(2, 3)
            found = F.scaled_dot_product_attention(query, key, value, scale=attention.scaling)  # (B, H, L, W)
            out.index_copy_(0, where, found.transpose(1, 2).reshape(-1, *out.shape[1:]))
        return second(x, out.flatten(1))

    return forward


@lru_cache(maxsize=64)
def _windows(borders: tuple[int, ...]) -> list[tuple[int, Tensor]]:
    """The rows of all windows of each length; `borders` are where windows begin and end."""
    by_length: dict[int, list[int]] = {}
    for first, end in pairwise(borders):
        by_length.setdefault(end - first, []).extend(range(first, end))
    return [(length, torch.tensor(rows)) for length, rows in by_length.items()]


def _turned(x: Tensor, cos: Tensor, sin: Tensor, into: Tensor | None = None) -> Tensor:
    """x * cos + rotate_half(x) * sin, (N, ..., width), in half the passes, and in the angles' number format."""
    half = x.shape[-1] // 2
    wide, same = x.to(cos.dtype), x.dtype == cos.dtype
    turned = torch.mul(wide, cos, out=into if same else None)
    turned[..., :half].addcmul_(wide[..., half:], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(wide[..., :half], sin[..., half:])
    return turned if same or into is None else into.copy_(turned)


def _at_once(cache: int, a_row: int, device: torch.device) -> int:
    """How many rows of so many bytes are taken at once; on a GPU, all."""
    return max(FEWEST, cache // a_row) if device.type == "cpu" else 1 << 62


def _in_cache(at_once: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows of `tensors` in equal parts of at most `at_once`."""
    parts = -(-len(tensors[0]) // at_once) or 1
    yield from zip(*(tensor.chunk(parts) for tensor in tensors), strict=True)


def _gated(module: nn.Module) -> bool:
    """Whether this is down(silu(gate(x)) * up(x)), as in Llama and Qwen."""
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    silu = type(getattr(module, "act_fn", None)).__name__ in ("SiLU", "SiLUActivation")
    return silu and all(type(part) is nn.Linear for part in parts)


def _packed(weight: Tensor) -> Any:
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), LAYOUT_ROWS)


def _onednn_bf16() -> bool:
    """Whether this torch and this processor have oneDNN's bfloat16 products."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _weights(model: Any) -> int:
    return sum(m.weight.nbytes for m in model.modules() if type(m) is nn.Linear)


def _free_memory() -> int:
    """Bytes that this machine could still give, what the system keeps of files included; unknown counts as plenty."""
    with suppress(OSError, ValueError, StopIteration):  # Linux
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 62
