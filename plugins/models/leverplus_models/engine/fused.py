"""The element-wise parts of Llama and Qwen layers, each one kernel on a GPU (Triton), and the same in torch elsewhere.

Sums and products are taken in float32 and rounded once.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from leverplus_core import cache_folder


@cache
def _triton() -> Any:
    """The kernels, or None where Triton is not installed.

    Compiled ones are kept in the user's cache folder, unless TRITON_CACHE_DIR names another place.
    """
    if find_spec("triton") is None:
        return None
    kept = Path(os.environ.get("TRITON_CACHE_DIR") or cache_folder() / "triton")
    if not kept.is_dir():
        from leverplus_core import output

        output.say("compiling kernels for this GPU, once on this machine: some seconds")
        with suppress(OSError):  # where it cannot be made, Triton uses its own
            kept.mkdir(parents=True)
    if kept.is_dir():
        os.environ["TRITON_CACHE_DIR"] = str(kept)
    from leverplus_models.engine import triton_kernels

    return triton_kernels


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    if x.is_cuda and (kernels := _triton()):
        out: Tensor = kernels.rms_norm(x.contiguous(), weight, epsilon)
        return out
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon) * weight.float()).to(x.dtype)


def silu_times(both: Tensor) -> Tensor:
    """silu(gate) * up (Shazeer 2020, arXiv:2002.05202), (N, M), from both (N, 2 * M), the gate first."""
    if both.is_cuda and (kernels := _triton()):
        out: Tensor = kernels.silu_times(both)
        return out
    gate, up = both.chunk(2, -1)
    return F.silu(gate) * up


def rotate(made: Tensor, cos: Tensor, sin: Tensor, query: Tensor | None, both: Tensor | None) -> None:
    """Split a projection into queries, keys and values, and rotate the first two (Su et al. 2021, arXiv:2104.09864).

    made (N, (H + 2 * G) * W) holds H queries, G keys and G values; cos and sin (N, W). Written are query (N, H, W) and
    both (N, 2, G, W), keys first; without one of them `made` has the other alone.
    """
    if made.is_cuda and (kernels := _triton()):
        kernels.rotate(made, cos.contiguous(), sin.contiguous(), query, both)
        return
    width, heads = cos.shape[-1], 0 if query is None else query.shape[1]
    keys = 0 if both is None else both.shape[2]
    parts = made.view(len(made), -1, width)
    turned, half = parts[:, : heads + keys].float(), width // 2
    turned = turned * cos[:, None] + torch.cat([-turned[..., half:], turned[..., :half]], -1) * sin[:, None]
    if query is not None:
        query.copy_(turned[:, :heads])
    if both is not None:
        both[:, 0], both[:, 1] = turned[:, heads:].to(both.dtype), parts[:, heads + keys :]
