"""What an arm did, measured from outside: images and tokens that the model computed, its memory, and the ceiling."""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(slots=True)
class Counts:
    """What went through the model: images through the vision tower, tokens (padding too) through the decoder."""

    images: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Launches:
    """What a GPU ran: kernels and copies, and their seconds."""

    count: int = 0
    seconds: float = 0.0


@contextmanager
def counted(model: Any) -> Iterator[Counts]:
    """Count what a `Qwen2_5_VLForConditionalGeneration` computes, by hooks on modules that all of it passes."""
    counts = Counts()

    def images(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        counts.images += len(kwargs["grid_thw"] if "grid_thw" in kwargs else args[1])

    def tokens(module: Any, args: tuple[Any, ...]) -> None:
        counts.tokens += args[0].numel() // args[0].shape[-1]

    hooks = [
        model.model.visual.register_forward_pre_hook(images, with_kwargs=True),
        model.model.language_model.layers[0].register_forward_pre_hook(tokens),
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def reset_peak(device: str = "cpu") -> None:
    """Reset the peak of this process's memory where the system can (Linux); else it stays the process's own.

    On a GPU, of the memory that tensors take there.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mb(device: str = "cpu") -> float:
    """The most resident memory (MiB) of this process, or of a GPU taken by tensors, since `reset_peak`."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def matmul_ceiling(dtype: torch.dtype, repeats: int = 3, device: str = "cpu") -> float:
    """FLOP/s of one large matrix product on this process's threads, or on a GPU: the best size's median."""
    rates = []
    for side in (1024, 2048) if device == "cpu" else (8192,):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        seconds = []
        for _ in range(repeats + 1):
            wait(device)
            began = time.perf_counter()
            a @ b
            wait(device)
            seconds.append(time.perf_counter() - began)
        rates.append(2 * side**3 / statistics.median(seconds[1:]))
    return max(rates)


def wait(device: str) -> None:
    """Wait until a GPU has done what was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def launches(device: str) -> Iterator[Launches]:
    """Count the kernels that a GPU runs inside the block, and the seconds in which it does."""
    found = Launches()
    if device != "cuda":
        yield found
        return
    from torch._C._autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        yield found
        wait(device)
    for event in profiler.profiler.kineto_results.events():
        if event.device_type() == DeviceType.CUDA:
            found.count += 1
            found.seconds += event.duration_ns() / 1e9
