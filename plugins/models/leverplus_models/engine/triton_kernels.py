"""Triton kernels of `fused`. A form of one is compiled in about a second, once on a machine: Triton keeps it on disk.

A form is a kernel for a width and a number format, not for a number of rows: a Qwen2.5-VL has eight.

Parameters of kernels have no types: Triton reads an annotation as a name of its own language.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 2048
"""Columns of an MLP that one program multiplies."""


@triton.jit  # type: ignore[untyped-decorator]
def _rms_norm(x, weight, out, epsilon, size: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64) * size
    at = tl.arange(0, block)
    inside = at < size
    wide = tl.load(x + row + at, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(wide * wide, 0) / size + epsilon)
    factor = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row + at, (wide * scale * factor).to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _silu_times(both, out, size, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < size
    gate = tl.load(both + row * 2 * size + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * size + size + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * size + at, (gate / (1.0 + tl.exp(-gate)) * up).to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _rotate(  # type: ignore[no-untyped-def]
    made,
    cos,
    sin,
    query,
    both,
    heads: tl.constexpr,
    keys: tl.constexpr,
    half: tl.constexpr,
    head_block: tl.constexpr,
    value_block: tl.constexpr,
    half_block: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    width: tl.constexpr = 2 * half
    lane = tl.arange(0, half_block)[None, :]
    head = tl.arange(0, head_block)[:, None]
    narrow = lane < half
    inside = (head < heads + keys) & narrow
    angle = row * width + lane
    cos_low = tl.load(cos + angle, mask=narrow, other=0.0).to(tl.float32)
    cos_high = tl.load(cos + angle + half, mask=narrow, other=0.0).to(tl.float32)
    sin_low = tl.load(sin + angle, mask=narrow, other=0.0).to(tl.float32)
    sin_high = tl.load(sin + angle + half, mask=narrow, other=0.0).to(tl.float32)
    source = made + row * (heads + 2 * keys) * width
    low = tl.load(source + head * width + lane, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(source + head * width + lane + half, mask=inside, other=0.0).to(tl.float32)
    first = low * cos_low - high * sin_low
    second = high * cos_high + low * sin_high
    if heads > 0:
        into = query + row * heads * width + head * width + lane
        tl.store(into, first.to(query.dtype.element_ty), mask=inside & (head < heads))
        tl.store(into + half, second.to(query.dtype.element_ty), mask=inside & (head < heads))
    if keys > 0:
        into = both + row * 2 * keys * width + (head - heads) * width + lane
        tl.store(into, first.to(both.dtype.element_ty), mask=inside & (head >= heads))
        tl.store(into + half, second.to(both.dtype.element_ty), mask=inside & (head >= heads))
        value = tl.arange(0, value_block)[:, None]
        held = (value < keys) & narrow
        source = source + (heads + keys + value) * width + lane
        into = both + row * 2 * keys * width + (keys + value) * width + lane
        tl.store(into, tl.load(source, mask=held, other=0.0), mask=held)
        tl.store(into + half, tl.load(source + half, mask=held, other=0.0), mask=held)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """See `fused.rms_norm`; x is contiguous."""
    out, size = torch.empty_like(x), x.shape[-1]
    if x.numel():
        block = triton.next_power_of_2(size)
        _rms_norm[(x.numel() // size,)](x, weight, out, epsilon, size, block, num_warps=8 if block > 2048 else 4)
    return out


def silu_times(both: Tensor) -> Tensor:
    """See `fused.silu_times`; both is contiguous."""
    size = both.shape[-1] // 2
    out = both.new_empty(len(both), size)
    if len(both):
        _silu_times[(len(both), triton.cdiv(size, COLUMNS))](both, out, size, COLUMNS, num_warps=8)
    return out


def rotate(made: Tensor, cos: Tensor, sin: Tensor, query: Tensor | None, both: Tensor | None) -> None:
    """See `fused.rotate`; all tensors are contiguous."""
    heads, keys = 0 if query is None else query.shape[1], 0 if both is None else both.shape[2]
    half = cos.shape[-1] // 2
    blocks = [triton.next_power_of_2(n) for n in (heads + keys, max(keys, 1), half)]
    if len(made):
        unused = made  # a pointer that is not followed
        _rotate[(len(made),)](
            made, cos, sin, unused if query is None else query, unused if both is None else both,
            heads, keys, half, *blocks, num_warps=4,
        )  # fmt: skip
