"""Where a checkpoint is, what is in it, and how it is loaded: strictly, and never with code from a hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from logging import CRITICAL
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError
from transformers.utils import logging

from leverplus_core.errors import CheckpointError

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
Attention = Literal["sdpa", "eager", "flash_attention_2"]
T = TypeVar("T")
CONTENT = ("*.json", "*.safetensors", "*.bin", "*.txt", "*.model", "*.jinja")


def local_folder(path: str) -> Path | None:
    """The folder that `path` names, or None for a hub id. CheckpointError for a folder that is not there."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"no config.json in the checkpoint folder '{path}'.", "Give the folder that holds it."
            )
        return folder
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise CheckpointError(f"no checkpoint folder '{path}'.", "Give a folder with config.json, or a hub id.")
    return None


def content(path: str, revision: str | None) -> str:
    """What a checkpoint is, wherever it lies: a hash of its files, or the hub id with its revision."""
    folder = local_folder(path)
    return f"{path}@{revision or 'main'}" if folder is None else _hash(folder)


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted({file for pattern in CONTENT for file in folder.glob(pattern)}):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(f"no device '{name}' on this machine: {error}.", "Set device to auto or cpu.") from error


def load(what: str, read: Callable[[], T]) -> T:
    """`read()`, with the ways in which a checkpoint can be absent or damaged as a CheckpointError that names it."""
    try:
        return read()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, ImportError) as error:
        raise CheckpointError(
            f"cannot load '{what}': {str(error)[:300]}", "Give a complete checkpoint: a folder, or a hub id in reach."
        ) from error


def load_model(
    cls: Any, path: str, revision: str | None, dtype: Dtype, attention: Attention, device: torch.device
) -> Any:
    """`cls.from_pretrained`, ready to score; every weight must be there, none left over."""
    before = logging.get_verbosity()
    logging.set_verbosity(CRITICAL)  # what a loading report would say is raised below
    logging.disable_progress_bar()
    try:
        model, report = load(
            path,
            lambda: cls.from_pretrained(
                path,
                revision=revision,
                dtype="auto" if dtype == "auto" else getattr(torch, dtype),
                attn_implementation=attention,
                trust_remote_code=False,
                output_loading_info=True,
            ),
        )
    finally:
        logging.set_verbosity(before)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(str(name) for name in report[problem]):
            raise CheckpointError(
                f"checkpoint '{path}' does not fit {cls.__name__}: {problem.replace('_', ' ')} {', '.join(names[:3])}"
                f"{' ...' if len(names) > 3 else ''}.",
                "Give a checkpoint of this architecture.",
            )
    return model.to(device).eval()


def end_marks(model: Any, tokenizer: Any) -> list[int]:
    """The token ids at which a generation ends: the checkpoint's, or else the tokenizer's."""
    marks = model.generation_config.eos_token_id
    marks = tokenizer.eos_token_id if marks is None else marks
    if marks is None:
        raise CheckpointError(
            f"'{model.name_or_path}' names no end token.", "Set eos_token_id in its generation_config.json."
        )
    return list(marks) if isinstance(marks, list) else [int(marks)]
