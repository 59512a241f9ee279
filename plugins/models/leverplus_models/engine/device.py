"""The device that a model runs on: copies to it that nothing waits for, and budgets from its free memory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leverplus_core import DataError
from leverplus_models.engine.settings import EngineSettings

CPU_TOKENS, CPU_KV_MB, CPU_IMAGES_MB = 2048, 1024, 1024
"""`auto` on a CPU: larger batches are no faster there."""
MOST_TOKENS = 1 << 15
"""`auto` on a GPU: enough rows to fill the largest chip."""
OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch's errors say, where they have no class of their own. An illegal access to memory is none of them."""
SHARE = 4
"""A batch may take one part in so many of the free memory; fragments and encoded images need the rest."""


def to_device(array: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """`array` on `device`. A copy to a GPU starts from pinned memory, and the processor does not wait for it."""
    return moved(torch.from_numpy(np.ascontiguousarray(array)), device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, of the processor, on `device`, as `to_device` moves an array."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def free_memory(device: torch.device) -> int:
    """Bytes that a program may still take on `device`; a very large number where it is not known.

    On a GPU that is what is free and what torch holds unused; on a CPU reclaimable file caches count as free.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    with suppress(OSError, ValueError, StopIteration):  # Linux
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 62


def token_budget(model: Any, settings: EngineSettings) -> int:
    """Tokens of a forward pass: the settings' own, or for `auto` as many as the device's free memory is good for."""
    text, device = model.config.get_text_config(), model.device
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cached: int = 2 * text.num_hidden_layers * heads * width * model.dtype.itemsize  # keys and values of a token
    on_cpu, tokens, cache_mb = device.type == "cpu", settings.tokens_per_batch, settings.kv_cache_mb
    if tokens != "auto":
        budget: int = tokens
    elif on_cpu:
        budget = CPU_TOKENS
    else:
        # A layer's widest results, and keys and values thrice: computed, gathered, and kept for the next pass.
        inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
        row = (3 * inner + 8 * text.hidden_size) * model.dtype.itemsize + 3 * cached
        affordable = max(256, free_memory(device) // SHARE // row)
        budget = min(MOST_TOKENS, 1 << (affordable.bit_length() - 1))
    if cache_mb == "auto":
        return min(budget, CPU_KV_MB * 2**20 // cached) if on_cpu else budget
    return max(1, min(budget, cache_mb * 2**20 // cached))


def image_cache_bytes(device: torch.device, settings: EngineSettings) -> int:
    """Memory for encoded images: the settings' own, or for `auto` an eighth of what is free on a GPU."""
    if settings.image_cache_mb != "auto":
        return settings.image_cache_mb * 2**20
    return CPU_IMAGES_MB * 2**20 if device.type == "cpu" else free_memory(device) // (2 * SHARE)


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out; unused memory of a GPU is given back."""
    out = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(says in str(error) for says in OUT_OF_MEMORY)
    if out and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return out


def too_large(what: str, device: torch.device, error: BaseException) -> DataError:
    """The error of a smallest batch that does not fit."""
    said = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(
        f"{what} does not fit in the memory of {device}: {said}",
        "Free some memory, or use fewer shots, smaller images or a smaller model.",
    )
