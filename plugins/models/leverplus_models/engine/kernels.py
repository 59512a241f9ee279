"""Faster equivalent forms of the layers of Llama and Qwen models, patched into a model while the engine runs it.

The rows of a layer go through its norms, rotations and MLP one block after another, so that intermediate results stay
in the processor's cache; attention alone sees all rows. In bfloat16 on a CPU, matrix products go through oneDNN with
weights packed once for the matrix unit (the stock path packs them at every call), and activations, products and sums
that follow are fused into them. Sums are taken in float32 as in the stock layers; fewer intermediate results are
rounded to bfloat16. What this gains is in `docs/design/013-kernels.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leverplus_models.engine import fused, gpu_layers
from leverplus_models.engine.device import free_memory
from leverplus_models.engine.packed_attention import supports_packed
from leverplus_models.engine.tree_attention import Padding, TreePass

ROTARY_ATTENTION = ("Qwen2_5_VLAttention", "Qwen2Attention", "LlamaAttention")
"""Attention layers that consist of projections and rotary positions over the whole head, and nothing else."""
PRE_NORM_LAYERS = ("Qwen2_5_VLDecoderLayer", "Qwen2DecoderLayer", "LlamaDecoderLayer")
"""Layers x + attention(norm(x)), then x + mlp(norm(x)), with such an attention."""
PACKING_ROWS = 2048
"""The number of rows that the weights are packed for; it works for any other number."""
MLP_BLOCK, NORM_BLOCK = 6 << 20, 4 << 20
"""Bytes of an MLP's inner rows, and of float32 rows, per block: they stay in a processor's cache."""
MIN_BLOCK_ROWS = 128
Rows = Callable[[Tensor], Tensor]


class Kernels:
    """The layers of `model` that have a faster form, none with `enabled` off.

    Weights are packed on a CPU with bfloat16 products only, and not where memory is short: they are a second copy.
    `last_layer_selects`: under a tree that names `logit_rows`, the last layer returns these rows alone, since nothing
    but their logits depends on its queries and its MLP.
    """

    def __init__(self, model: Any, enabled: bool = True) -> None:
        self._forwards: list[tuple[nn.Module, Callable[..., Any]]] = []
        self.padding, self.last_layer_selects = Padding(), False
        if enabled:
            self._collect(model)

    def _collect(self, model: Any) -> None:
        if on_gpu(model):
            self._collect_for_gpu(model)
            return
        on_cpu = model.device.type == "cpu" and model.dtype == torch.bfloat16 and _onednn_bf16()
        packs = on_cpu and _weight_bytes(model) < free_memory(model.device) // 2
        self.padding = Padding(rounded=packs)
        layers = list(getattr(model.get_decoder(), "layers", ()))
        inside: set[nn.Module] = set()
        for module in model.modules():
            name = type(module).__name__
            if hasattr(module, "variance_epsilon") and name.endswith("RMSNorm"):
                self._forwards.append((module, _norm(module)))
            elif name == "Qwen2_5_VisionPatchEmbed":
                self._forwards.append((module, _patch_embedding(module)))
            elif name == "Qwen2_5_VLVisionBlock" and module.attn.config._attn_implementation == "sdpa":
                self._forwards.append((module, _vision_block(module, packs)))
                inside |= set(module.modules())
            elif _supported(module):
                self._forwards.append((module, _decoder_layer(module, module is layers[-1], packs)))
                inside |= set(module.modules())
        self.last_layer_selects = bool(layers) and _supported(layers[-1])
        if packs:
            linears = [m for m in model.modules() if type(m) is nn.Linear and m not in inside]
            output = model.get_output_embeddings()  # computed at few positions: not worth a copy
            self._forwards += [(m, _Linear(m, packs)) for m in linears if m is not output]

    def _collect_for_gpu(self, model: Any) -> None:
        """Layers of few and large kernels (`gpu_layers`)."""
        layers = list(getattr(model.get_decoder(), "layers", ()))
        # Whole images in some blocks; in the others no window is longer than this.
        towers = [m for m in model.modules() if hasattr(m, "fullatt_block_indexes") and hasattr(m, "blocks")]
        windows = {
            block: None if n in tower.fullatt_block_indexes else (tower.window_size // tower.patch_size) ** 2
            for tower in towers
            for n, block in enumerate(tower.blocks)
        }
        packed = supports_packed(model)
        self.padding = Padding(rounded=not packed)
        for module in model.modules():
            name = type(module).__name__
            if hasattr(module, "variance_epsilon") and name.endswith("RMSNorm"):
                self._forwards.append((module, _fused_norm(module)))
            elif name == "Qwen2_5_VisionPatchEmbed":
                self._forwards.append((module, _patch_embedding(module)))
            elif name == "Qwen2_5_VLVisionBlock" and module.attn.config._attn_implementation == "sdpa":
                fast = gpu_layers.vision_block(module, windows.get(module)) if packed else _vision_block(module, False)
                self._forwards.append((module, fast))
            elif _supported(module):
                self._forwards.append((module, gpu_layers.decoder_layer(module, module is layers[-1])))
        self.last_layer_selects = bool(layers) and _supported(layers[-1])

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Inside the block the model computes the faster way; after it, its layers are its own again."""
        for module, forward in self._forwards:
            vars(module)["forward"] = forward
        try:
            yield
        finally:
            for module, _ in self._forwards:
                vars(module).pop("forward", None)


class _Linear:
    """x W^T + b of a linear layer, and operations that can be fused into it."""

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
        """(x W^T + b) * y; may overwrite `y`."""
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


def _fused_norm(module: Any) -> Rows:
    return lambda x: fused.rms_norm(x, module.weight, module.variance_epsilon)


def _patch_embedding(module: Any) -> Rows:
    """A convolution whose stride is its kernel size sees each patch once: it is a matrix product."""

    def forward(x: Tensor) -> Tensor:
        weight = module.proj.weight.flatten(1)
        return F.linear(x.view(-1, weight.shape[1]).to(weight.dtype), weight, module.proj.bias)

    return forward


class _PostAttention:
    """The half of a layer that follows attention: h = x + out(attended), then h + mlp(norm(h))."""

    def __init__(self, out: Any, norm: Any, mlp: Any, packs: bool) -> None:
        self.out = _Linear(out, packs)
        self.norm = _norm(norm)
        self.gate, self.up, self.down = (_Linear(m, packs) for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        self.block_rows = _block_rows(MLP_BLOCK, mlp.gate_proj.weight[:, 0].nbytes, mlp.gate_proj.weight.device)

    def __call__(self, x: Tensor, attended: Tensor) -> Tensor:
        """(N, D) from (N, D) and (N, heads * width)."""
        made = []
        for rows, found in _blocks(self.block_rows, x, attended):
            hidden = self.out.plus(found, rows)
            normed = self.norm(hidden)
            made.append(self.down.plus(self.up.times(normed, self.gate.silu(normed)), hidden))
        return made[0] if len(made) == 1 else torch.cat(made)


def _decoder_layer(layer: Any, last: bool, packs: bool) -> Callable[..., Tensor]:
    """A decoder layer under a tree, (1, N, D) -> (1, N, D); without one, the model's own.

    The `last` layer returns the tree's `logit_rows` alone, if it names some: (1, N, D) -> (1, R, D).
    """
    attention, width = layer.self_attn, layer.self_attn.head_dim
    norm = _norm(layer.input_layernorm)
    queries, keys, values = (_Linear(m, packs) for m in (attention.q_proj, attention.k_proj, attention.v_proj))
    post = _PostAttention(attention.o_proj, layer.post_attention_layernorm, layer.mlp, packs)
    heads, key_heads = (m.weight.shape[0] // width for m in (attention.q_proj, attention.k_proj))
    block_rows = _block_rows(NORM_BLOCK, 4 * width * heads, attention.q_proj.weight.device)

    def forward(hidden_states: Tensor, *args: Any, tree: TreePass | None = None, **kwargs: Any) -> Tensor:
        if tree is None:
            out: Tensor = type(layer).forward(layer, hidden_states, *args, **kwargs)
            return out
        x = hidden_states[0]
        cos, sin = (angles[0, :, None] for angles in kwargs["position_embeddings"])  # (N, 1, width)
        chosen = tree.logit_rows if last else None
        query = x.new_empty(len(x if chosen is None else chosen), heads, width)
        both = tree.allocate(attention.layer_idx, x, key_heads, width)  # (N, 2, key_heads, width)
        written = (both, query) if chosen is None else (both,)
        for rows, c, s, into, *query_rows in _blocks(block_rows, x, cos, sin, *written):
            normed = norm(rows)
            into[:, 0] = apply_rotary(keys(normed).view(-1, key_heads, width), c, s)
            into[:, 1] = values(normed).view(-1, key_heads, width)
            for out_rows in query_rows:
                apply_rotary(queries(normed).view(out_rows.shape), c, s, out_rows)
        if chosen is not None:
            x, cos, sin = (tensor.index_select(0, chosen) for tensor in (x, cos, sin))
            apply_rotary(queries(norm(x)).view(query.shape), cos, sin, query)
        attended = tree.attend(attention.layer_idx, query, attention.scaling, at_logits=chosen is not None)
        return post(x, attended.flatten(1))[None]

    return forward


def _supported(layer: Any) -> bool:
    """Whether this layer computes what `_decoder_layer` does."""
    name, attention = type(layer).__name__, type(getattr(layer, "self_attn", None)).__name__
    return name in PRE_NORM_LAYERS and attention in ROTARY_ATTENTION and _gated(layer.mlp)


def _vision_block(block: Any, packs: bool) -> Callable[..., Tensor]:
    """Windows of one length share a call of attention; the stock layer calls it once per window."""
    attention = block.attn
    norm, project = _norm(block.norm1), _Linear(attention.qkv, packs)
    post = _PostAttention(attention.proj, block.norm2, block.mlp, packs)
    block_rows = _block_rows(NORM_BLOCK, 8 * attention.proj.weight.shape[0], attention.proj.weight.device)

    def forward(
        hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **unused: Any
    ) -> Tensor:
        x = hidden_states
        cos, sin = (angles[:, None, None] for angles in position_embeddings)
        parts = x.new_empty(3, len(x), attention.num_heads, cos.shape[-1])
        for rows, c, s, into in _blocks(block_rows, x, cos, sin, parts.transpose(0, 1)):
            made = project(norm(rows)).view(into.shape)
            into[:, :2] = apply_rotary(made[:, :2], c, s)
            into[:, 2] = made[:, 2]
        out = torch.empty_like(parts[0])
        for length, rows in _windows(tuple(cu_seqlens.tolist())):
            where = rows.to(x.device)
            query, key, value = parts.index_select(1, where).view(3, -1, length, *out.shape[1:]).transpose(2, 3)
            found = F.scaled_dot_product_attention(query, key, value, scale=attention.scaling)  # (B, H, L, W)
            out.index_copy_(0, where, found.transpose(1, 2).reshape(-1, *out.shape[1:]))
        return post(x, out.flatten(1))

    return forward


@lru_cache(maxsize=64)
def _windows(borders: tuple[int, ...]) -> list[tuple[int, Tensor]]:
    """(length, rows of all windows of that length); `borders` are where windows begin and end."""
    by_length: dict[int, list[int]] = {}
    for first, end in pairwise(borders):
        by_length.setdefault(end - first, []).extend(range(first, end))
    return [(length, torch.tensor(rows)) for length, rows in by_length.items()]


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor, into: Tensor | None = None) -> Tensor:
    """x * cos + rotate_half(x) * sin (Su et al. 2021, arXiv:2104.09864), (N, ..., width), in the dtype of the angles.

    Written to `into` if given.
    """
    half = x.shape[-1] // 2
    wide, same = x.to(cos.dtype), x.dtype == cos.dtype
    rotated = torch.mul(wide, cos, out=into if same else None)
    rotated[..., :half].addcmul_(wide[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(wide[..., :half], sin[..., half:])
    return rotated if same or into is None else into.copy_(rotated)


def _block_rows(block: int, row: int, device: torch.device) -> int:
    """Rows per block of `block` bytes, a row taking `row`; on a GPU, all."""
    return max(MIN_BLOCK_ROWS, block // row) if device.type == "cpu" else 1 << 62


def _blocks(block_rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The rows of `tensors` in equal blocks of at most `block_rows`."""
    parts = -(-len(tensors[0]) // block_rows) or 1
    yield from zip(*(tensor.chunk(parts) for tensor in tensors), strict=True)


def _gated(module: nn.Module) -> bool:
    """Whether this MLP is down(silu(gate(x)) * up(x)), as in Llama and Qwen."""
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    silu = type(getattr(module, "act_fn", None)).__name__ in ("SiLU", "SiLUActivation")
    return silu and all(type(part) is nn.Linear for part in parts)


def _packed(weight: Tensor) -> Any:
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), PACKING_ROWS)


def on_gpu(model: Any) -> bool:
    """Whether layers take their form for a GPU."""
    return bool(model.device.type == "cuda")


def _onednn_bf16() -> bool:
    """Whether this torch and this processor have oneDNN's bfloat16 products."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _weight_bytes(model: Any) -> int:
    return sum(m.weight.nbytes for m in model.modules() if type(m) is nn.Linear)
