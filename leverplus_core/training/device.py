"""Where a selector is trained and chooses: on the CPU, or on the model's GPU where a step is large enough for it.

A step of a selector is some hundreds of small operations. A GPU takes some microseconds to start each of them, however
little there is to compute, a CPU takes as long as the arithmetic does: below some size the CPU is faster.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from leverplus_core.pretrained import pick_device
from leverplus_core.recipes.settings import TrainingDevice
from leverplus_core.selector.features import SelectorFeatures

LARGE = 2**15
"""Numbers that a question's pool consists of, demonstrations times columns, from which `auto` takes a GPU."""


def training_device(
    wanted: TrainingDevice, model_device: str, features: SelectorFeatures, free: Callable[[torch.device], int]
) -> torch.device:
    """The device for features, selectors and training; `model_device` is the model's setting, "auto" or a name.

    `auto` is the model's GPU where there is one, a pool holds at least `LARGE` numbers, and the features take no more
    than half of the memory that is `free` (bytes); else the CPU. Raises CheckpointError for a GPU that is not there.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    on_gpu = model_device.startswith("cuda")
    if wanted == "cuda":
        return pick_device(model_device if on_gpu else "cuda")
    if not (on_gpu or model_device == "auto"):
        return torch.device("cpu")
    device = pick_device(model_device)
    if device.type != "cuda" or not worth_moving(features) or 2 * size_of(features) > free(device):
        return torch.device("cpu")
    return device


def worth_moving(features: SelectorFeatures) -> bool:
    """Whether the pools of these features are large enough for a GPU to be faster."""
    return features.pool_rows.shape[1] * features.bank.rows.shape[1] >= LARGE


def size_of(features: SelectorFeatures) -> int:
    """Bytes that the features take on a device."""
    held = [features.questions.rows, features.bank.rows, features.pool_rows]
    return sum(rows.numel() * rows.element_size() for rows in held)


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU that this process may still take: what is free, and what torch holds unused."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused
