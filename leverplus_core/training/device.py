"""Where a selector is trained and chooses: on the CPU, or on the model's GPU where a step is large enough for it.

A step of a selector is some 700 small operations. Starting them takes a GPU some 10 ms, however little there is to
compute; a CPU takes longer the more there is, so that a GPU gains where pools and features are large.
"""

from __future__ import annotations

import torch

from leverplus_core.pretrained import pick_device
from leverplus_core.recipes.settings import TrainingDevice
from leverplus_core.selector.features import SelectorFeatures

LARGE = 2**14
"""Numbers that a question's pool consists of, demonstrations times columns, from which `auto` takes a GPU.

On one CPU thread a step with next to no arithmetic takes 9 ms (which is what starting its operations takes anywhere),
one with 12,288 numbers a pool 51 ms, with 24,576 75 ms, with 393,216 339 ms: `tools/bench_training.py`.
"""


def training_device(wanted: TrainingDevice, model_device: str, features: SelectorFeatures) -> torch.device:
    """The device for features, selectors and training; `model_device` is the model's setting, "auto" or a name.

    `auto` is the model's GPU where there is one and it `gains`, else the CPU. Raises CheckpointError for a GPU that is
    not there.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    on_gpu = model_device.startswith("cuda")
    if wanted == "cuda":
        return pick_device(model_device if on_gpu else "cuda")
    if not (on_gpu or model_device == "auto"):
        return torch.device("cpu")
    device = pick_device(model_device)
    return device if device.type == "cuda" and gains(features, _free_memory(device)) else torch.device("cpu")


def gains(features: SelectorFeatures, free: int) -> bool:
    """Whether a GPU with `free` bytes is faster: pools hold at least `LARGE` numbers, and the features take no more
    than half of its memory."""
    held = [features.questions.rows, features.bank.rows, features.pool_rows]
    taken = sum(rows.numel() * rows.element_size() for rows in held)
    return features.pool_rows.shape[1] * features.bank.rows.shape[1] >= LARGE and 2 * taken <= free


def _free_memory(device: torch.device) -> int:
    """Bytes of a GPU that this process may still take: what is free, and what torch holds unused."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + unused
