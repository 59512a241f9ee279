"""CLIP (Radford et al. 2021, arXiv:2103.00020) through transformers, imported when weights are loaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import Field

from leverplus_core import (
    CheckpointError,
    Encoder,
    Floats,
    Image,
    Model,
    PictureSettings,
    Pretrained,
    load_model,
)

T = TypeVar("T")


class ClipEncoder(PictureSettings, Pretrained, Encoder):
    """CLIP's image and text features, in one space."""

    path: str = Field("openai/clip-vit-base-patch32", description="a local folder or a hub id")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    batch_size: int = Field(32, gt=0, description="changes speed and memory only")

    def identity(self) -> dict[str, object]:
        """The number format, the checkpoint's content hash, the image processor, and the color behind pictures."""
        checkpoint, processor = self.checkpoint_content, "CLIPImageProcessorPil"
        return {
            "dtype": self.dtype, "checkpoint": checkpoint, "image_processor": processor, "background": self.background,
        }  # fmt: skip

    def images(self, images: Sequence[Image], model: Model | None = None) -> Floats:
        """(N, D) projected image features, normalized. Raises DataError for an image that cannot be read."""
        return self._batched(images, self._encode_images)

    def texts(self, texts: Sequence[str], model: Model | None = None) -> Floats:
        """(N, D) projected text features, normalized; longer texts are truncated to CLIP's context."""
        return self._batched(texts, self._encode_texts)

    def _batched(self, items: Sequence[T], encode: Callable[[Sequence[T]], Any]) -> Floats:
        import torch
        from torch.nn import functional as F

        rows = [np.zeros((0, self._model.config.projection_dim), dtype=np.float32)]
        with torch.inference_mode():
            for start in range(0, len(items), self.batch_size):
                out = encode(items[start : start + self.batch_size])
                features = out if isinstance(out, torch.Tensor) else out.pooler_output  # a tensor before transformers 5
                rows.append(F.normalize(features.float(), dim=-1).cpu().numpy())
        return np.concatenate(rows)

    def _encode_images(self, images: Sequence[Image]) -> Any:
        pixels = self._image_processor(images=[self._open(image) for image in images], return_tensors="pt")[
            "pixel_values"
        ]
        return self._model.get_image_features(pixel_values=pixels.to(self._model.device, self._model.dtype))

    def _open(self, image: Image) -> Any:
        path = self.image_path(image)
        return self.read_picture(self.read_file(path), path, self._resized)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """The size at which the processor crops a picture."""
        side = self._image_processor.size.get("shortest_edge", max(width, height))
        scale = side / min(width, height)
        return math.ceil(width * scale), math.ceil(height * scale)

    def _encode_texts(self, texts: Sequence[str]) -> Any:
        context = self._model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=context, return_tensors="pt")
        device = self._model.device
        return self._model.get_text_features(
            input_ids=tokens["input_ids"].to(device), attention_mask=tokens["attention_mask"].to(device)
        )

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoConfig, CLIPModel

        kind = self.pretrained(AutoConfig).model_type
        if kind != "clip":
            raise CheckpointError(f"checkpoint '{self.path}' is a {kind}, not a clip.", "Give a CLIP checkpoint.")
        return load_model(
            CLIPModel, self.path, revision=self.revision, dtype=self.dtype, device=self.device, allow_unused=True
        )

    @cached_property
    def _image_processor(self) -> Any:
        # The PIL one: the same pixels everywhere, and torchvision is not needed.
        from transformers import CLIPImageProcessorPil

        return self.pretrained(CLIPImageProcessorPil)
