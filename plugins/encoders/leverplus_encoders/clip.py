"""CLIP (Radford et al. 2021, arXiv:2103.00020) through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image as Pil
from PIL import ImageOps
from pydantic import Field
from torch.nn import functional as F
from transformers import AutoConfig, AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from leverplus_core.errors import CheckpointError, DataError
from leverplus_core.plugins.contracts import Encoder, Floats, Model
from leverplus_core.records import Image
from leverplus_encoders.checkpoints import fixed_content, open_checkpoint, pick_device


class ClipEncoder(Encoder):
    """CLIP's image and text features, in one space."""

    path: str = Field("openai/clip-vit-base-patch32", description="a local folder or a hub id")
    revision: str | None = Field(None, description="commit, tag or branch of a hub id; pin it")
    device: str = Field("auto", description="auto = the first GPU, or cpu")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = Field(32, gt=0, description="changes speed and memory only")

    def identity(self) -> dict[str, object]:
        settings = self.model_dump(mode="json", include={"dtype"})
        return {
            **settings,
            "checkpoint": self._content,
            "image_processor": CLIPImageProcessorPil.__name__,
        }

    def images(self, images: Sequence[Image], model: Model | None = None) -> Floats:
        rows = [self._encode_images(images[i : i + self.batch_size]) for i in range(0, len(images), self.batch_size)]
        return np.concatenate([self._none, *rows])

    def texts(self, texts: Sequence[str], model: Model | None = None) -> Floats:
        rows = [self._encode_texts(texts[i : i + self.batch_size]) for i in range(0, len(texts), self.batch_size)]
        return np.concatenate([self._none, *rows])

    @torch.inference_mode()
    def _encode_images(self, images: Sequence[Image]) -> Floats:
        pixels = self._image_processor(images=[_picture(image) for image in images], return_tensors="pt")[
            "pixel_values"
        ]
        out = self._model.get_image_features(pixel_values=pixels.to(self._model.device, self._model.dtype))
        return _unit(out)

    @torch.inference_mode()
    def _encode_texts(self, texts: Sequence[str]) -> Floats:
        window = self._model.config.text_config.max_position_embeddings
        tokens = self._tokenizer(list(texts), padding=True, truncation=True, max_length=window, return_tensors="pt")
        device = self._model.device
        out = self._model.get_text_features(
            input_ids=tokens["input_ids"].to(device), attention_mask=tokens["attention_mask"].to(device)
        )
        return _unit(out)

    @cached_property
    def _content(self) -> str:
        return fixed_content(self.path, self.revision)

    @cached_property
    def _none(self) -> Floats:
        return np.zeros((0, self._model.config.projection_dim), dtype=np.float32)

    @cached_property
    def _model(self) -> Any:
        kind = open_checkpoint(
            self.path, lambda: AutoConfig.from_pretrained(self.path, revision=self.revision)
        ).model_type
        if kind != "clip":
            raise CheckpointError(f"checkpoint '{self.path}' is a {kind}, not a clip.", "Give a CLIP checkpoint.")
        cls: Any = CLIPModel  # transformers types the pair that output_loading_info returns as a model
        model, report = open_checkpoint(
            self.path,
            lambda: cls.from_pretrained(
                self.path, revision=self.revision, dtype=getattr(torch, self.dtype), output_loading_info=True
            ),
        )
        if report["missing_keys"]:
            lacking = sorted(report["missing_keys"])[0]
            raise CheckpointError(f"checkpoint '{self.path}' lacks {lacking}.", "Give a complete CLIP checkpoint.")
        return model.to(pick_device(self.device)).eval()

    @cached_property
    def _tokenizer(self) -> Any:
        return open_checkpoint(self.path, lambda: AutoTokenizer.from_pretrained(self.path, revision=self.revision))

    @cached_property
    def _image_processor(self) -> Any:
        # The PIL one: the same pixels everywhere, and torchvision is not needed.
        return open_checkpoint(
            self.path, lambda: CLIPImageProcessorPil.from_pretrained(self.path, revision=self.revision or "main")
        )


def _picture(image: Image) -> Pil.Image:
    if image.path is None:
        raise DataError(
            f"image '{image.id}' has no file.", "Encoder clip reads pictures: set the dataset's image folder."
        )
    try:
        with Pil.open(image.path) as file:
            return (ImageOps.exif_transpose(file) or file).convert("RGB")
    except (OSError, SyntaxError, Pil.DecompressionBombError) as error:
        raise DataError(
            f"image '{image.path}' cannot be read: {error}.", "Replace it or drop its questions."
        ) from error


def _unit(out: Any) -> Floats:
    rows = out if isinstance(out, torch.Tensor) else out.pooler_output  # a tensor before transformers 5
    return np.asarray(F.normalize(rows.float(), dim=-1).cpu().numpy(), dtype=np.float32)
