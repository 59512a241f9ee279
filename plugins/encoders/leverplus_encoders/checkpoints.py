"""Checkpoints of encoders: what they are, how a broken one is told, and where they run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError

from leverplus_core.errors import CheckpointError

T = TypeVar("T")
CONTENT = ("*.json", "*.safetensors", "*.bin", "*.txt")


def fixed_content(path: str, revision: str | None) -> str:
    """A hash of a local folder's files, or the hub id with its revision. CheckpointError for an absent folder."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        if path.startswith((".", "/", "~")) or path.count("/") > 1:
            raise CheckpointError(f"no checkpoint folder '{path}'.", "Give a folder with config.json, or a hub id.")
        return f"{path}@{revision or 'main'}"
    digest = hashlib.sha256()
    for file in sorted({file for pattern in CONTENT for file in folder.glob(pattern)}):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def open_checkpoint(what: str, read: Callable[[], T]) -> T:
    """`read()`; a checkpoint that is absent or damaged is a CheckpointError that names it."""
    try:
        return read()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot load '{what}': {str(error)[:300]}", "Give a complete checkpoint: a folder, or a hub id in reach."
        ) from error


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(f"no device '{name}' on this machine: {error}.", "Set device to auto or cpu.") from error
