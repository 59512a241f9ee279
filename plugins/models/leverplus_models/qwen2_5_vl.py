"""Qwen2.5-VL (Bai et al. 2025, arXiv:2502.13923) through transformers: a packaged checkpoint, a folder or a hub id.

The model reads Qwen's own chat format. A piece of text is tokenized once, positions are computed once per layout,
and images are encoded once (`engine.image_encoder`). Images go through the PIL image processor, so that pixels are the
same everywhere and torchvision is not needed.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from leverplus_core import (
    CheckpointError,
    DataError,
    Floats,
    Image,
    PictureSettings,
    Prompt,
    SupportsCacheFolder,
    SupportsEmbeddings,
    SupportsPlanning,
    find_checkpoint,
    header_size,
    load_pretrained,
)
from leverplus_models.checkpoint_model import CheckpointModel, unit_rows
from leverplus_models.engine.rows import Ints, Row, Span

if TYPE_CHECKING:
    from torch import Tensor

    from leverplus_models.engine.engine import Features
    from leverplus_models.engine.image_encoder import ImageEncoder

IMAGES_PER_BATCH = 256
"""Images whose features are in memory together while `embed_images` averages them."""
TOKEN_SIDE = 14 * 2
"""A patch is 14 pixels wide, and 2 x 2 patches become one visual token, in every Qwen2.5-VL."""
WIDTH_3B = 2048
"""Width of a visual token of the 3B model, to plan with before the checkpoint is downloaded."""
CONTROL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

Piece = str | Image | tuple[str]
"""A text, an image, or one of Qwen's control tokens in a tuple, so that no text is mistaken for a control token."""


class Qwen25Vl(PictureSettings, SupportsEmbeddings, SupportsPlanning, SupportsCacheFolder, CheckpointModel):
    """Qwen2.5-VL: the demo checkpoint, a local folder or a hub id."""

    architecture: ClassVar[str] = "Qwen2_5_VLForConditionalGeneration"

    path: str = Field("demo", description="demo = the packaged checkpoint; else a local folder or a hub id")
    min_pixels: int | None = Field(
        56 * 56, gt=0, description="smaller images are enlarged; null = the checkpoint's own"
    )
    max_pixels: int | None = Field(640 * 480, gt=0, description="larger images are shrunk; null = the checkpoint's own")

    _cache_folder: Path | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _pixels_in_order(self) -> Qwen25Vl:
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError("min_pixels must not be above max_pixels")
        return self

    def identity(self) -> dict[str, object]:
        """The settings that decide a result, the checkpoint's content hash, and the image processor."""
        found = {**super().identity(), "image_processor": "Qwen2VLImageProcessorPil"}
        del found["max_file_megapixels"]  # decides what is refused, not what is read
        return found

    def use_cache_folder(self, folder: Path) -> None:
        """Keep encoded images below `folder`, unless `engine.image_cache_dir` names another place."""
        self._cache_folder = folder / "image-features"

    def embed_images(self, images: Sequence[Image]) -> Floats:
        """(N, D) the mean visual token of each image, normalized. Raises DataError for one that cannot be read."""
        rows: list[Tensor] = []
        keys = [self._image_encoder.inspect(self.image_path(image)).key for image in images]
        for start in range(0, len(keys), IMAGES_PER_BATCH):
            batch = keys[start : start + IMAGES_PER_BATCH]
            with self._engine.kernels.patched():
                upcoming = keys[start + IMAGES_PER_BATCH : start + 2 * IMAGES_PER_BATCH]
                features = self._image_encoder.encode(batch, upcoming)
            rows += [features[key].float().mean(0) for key in batch]
        self._settle()
        return unit_rows(rows, self._model)

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """(N, D) the mean input embedding of each text's tokens, normalized: a bag of words, blind to order."""
        import torch

        embedding = self._model.get_input_embeddings()
        ids = [self._tokenize(text) or self._tokenize(" ") or (self._control["<|im_end|>"],) for text in texts]
        with torch.inference_mode():
            return unit_rows(
                [embedding(torch.tensor(row, device=self._model.device)).float().mean(0) for row in ids], self._model
            )

    def image_tokens(self, images: Sequence[Image]) -> int | None:
        """From the sizes in the headers of those image files that exist; without any, from `max_pixels`."""
        config = self._local_json("preprocessor_config.json")
        size = config.get("size", {})
        low = self.min_pixels or size.get("shortest_edge") or config.get("min_pixels")
        high = self.max_pixels or size.get("longest_edge") or config.get("max_pixels")
        sizes = set(filter(None, (header_size(image.path) for image in images if image.path)))
        if sizes and low and high:
            return max(visual_tokens(width, height, low, high) for width, height in sizes)
        return None if self.max_pixels is None else self.max_pixels // TOKEN_SIDE**2

    def cached_image_bytes(self) -> int:
        """Of an image of `max_pixels`."""
        if not self.engine.image_cache or self.max_pixels is None:
            return 0
        config = self._local_json("config.json")
        width = int(config.get("text_config", config).get("hidden_size", WIDTH_3B))
        return self.max_pixels // TOKEN_SIDE**2 * width * (4 if self.dtype == "float32" else 2)

    # --- the checkpoint -----------------------------------------------------------------------------------------------

    def _local_json(self, name: str) -> dict[str, Any]:
        """A JSON file of the checkpoint if it is on this machine; {} otherwise. Nothing is downloaded."""
        try:
            source = find_checkpoint(self.path)
            file: Any = Path(source) / name
            if not os.path.isdir(source):
                from huggingface_hub import try_to_load_from_cache

                file = try_to_load_from_cache(source, name, revision=self.revision)
            found: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
            return found
        except (CheckpointError, OSError, ValueError, TypeError, RecursionError):
            return {}

    @cached_property
    def checkpoint(self) -> str:
        """What `from_pretrained` takes, once the config says that it is a Qwen2.5-VL."""
        from transformers import AutoConfig

        config = load_pretrained(AutoConfig, self.path, self.revision)
        if config.model_type != "qwen2_5_vl":
            raise CheckpointError(
                f"checkpoint '{self.path}' is a {config.model_type}, not a qwen2_5_vl.", "Give a Qwen2.5-VL checkpoint."
            )
        return find_checkpoint(self.path)

    @cached_property
    def _image_processor(self) -> Any:
        from transformers import Qwen2VLImageProcessorPil

        processor = self.pretrained(Qwen2VLImageProcessorPil)
        wanted = {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}
        own = {key: getattr(processor.size, key) for key in wanted}
        processor.size = type(processor.size)(**{key: wanted[key] or own[key] for key in wanted})
        return processor

    @cached_property
    def _image_encoder(self) -> ImageEncoder:
        from leverplus_models.engine.image_encoder import ImageEncoder

        version = getattr(self._model.config, "_commit_hash", None) or self.checkpoint_content
        folder = self.engine.image_cache_dir or self._cache_folder
        return ImageEncoder(self._model, self._image_processor, version, self.engine, folder, self)

    def _features(self) -> Features:
        return self._image_encoder.encode

    def _settle(self, wait: bool = True) -> None:
        self._image_encoder.cache.settle(wait)

    # --- text ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _control(self) -> dict[str, int]:
        ids = {token: self.tokenizer.convert_tokens_to_ids(token) for token in CONTROL}
        if missing := [token for token, i in ids.items() if i is None or i == self.tokenizer.unk_token_id]:
            raise CheckpointError(
                f"the tokenizer of '{self.path}' has no {missing[0]}.", "Give a Qwen2.5-VL checkpoint."
            )
        return ids

    def _ids(self, text: str) -> tuple[int, ...]:
        ids = super()._ids(text)
        if not set(self._control.values()).isdisjoint(ids):
            raise DataError(f"the text {text[:80]!r} contains control tokens of the model.", "Remove them.")
        return ids

    def _before_answer(self, prompt: Prompt) -> tuple[str, str]:
        return "assistant\n", ""

    @property
    def _end_mark(self) -> int:
        return self._control["<|im_end|>"]

    # --- prompts ------------------------------------------------------------------------------------------------------

    def _rows(self, prompts: Sequence[Prompt]) -> list[Row]:
        parts = (part for prompt in prompts for turn in prompt.turns for part in turn.content)
        self._image_encoder.inspect_all([part.path for part in parts if isinstance(part, Image) and part.path])
        return super()._rows(prompts)

    def _row(self, prompt: Prompt) -> Row:
        ids: list[int] = []
        layout: list[int | tuple[int, int]] = []  # lengths of texts, and grids of images
        images: list[Span] = []
        counted = 0
        for piece in pieces(prompt):
            if isinstance(piece, tuple):
                ids.append(self._control[piece[0]])
            elif isinstance(piece, str):
                ids += self._tokenize(piece)
            else:
                info = self._image_encoder.inspect(self.image_path(piece))
                h, w = info.grid
                layout += [len(ids) - counted, (h, w)]
                images.append(Span(len(ids), len(ids) + h * w, info.key))
                ids += [self._control["<|image_pad|>"]] * (h * w)
                counted = len(ids)
        layout.append(len(ids) - counted)
        return Row(np.array(ids, dtype=np.int64), rope_positions(tuple(layout)), tuple(images))


def pieces(prompt: Prompt) -> Iterator[Piece]:
    """A prompt in Qwen's chat format, up to where the assistant answers: what its chat template renders.

    `<|im_start|>{role}\\n{content}<|im_end|>\\n` per turn, then `<|im_start|>assistant\\n`; an image is
    `<|vision_start|>`, its visual tokens, `<|vision_end|>`. Adjacent texts are one piece, since a tokenizer may merge
    across their border. No system turn is added to a prompt without one.
    """
    text = ""
    for turn in prompt.turns:
        if text:
            yield text
        yield ("<|im_start|>",)
        text = f"{turn.role}\n"
        for part in turn.content:
            if isinstance(part, str):
                text += part
                continue
            if text:
                yield text
            yield ("<|vision_start|>",)
            yield part
            yield ("<|vision_end|>",)
            text = ""
        if text:
            yield text
        yield ("<|im_end|>",)
        text = "\n"
    if text:
        yield text
    yield ("<|im_start|>",)
    yield "assistant\n"


@lru_cache(maxsize=1 << 14)
def rope_positions(layout: tuple[int | tuple[int, int], ...]) -> Ints:
    """3-D positions (3, L) of texts (their lengths) and images (their token grids), as transformers' `get_rope_index`.

    Text advances by one on all axes. In an image the temporal axis stands still, rows and columns count from where the
    text stopped, and what follows continues after the longer side.
    """
    at = 0
    parts: list[Ints] = []
    for part in layout:
        if isinstance(part, int):
            parts.append(np.broadcast_to(at + np.arange(part), (3, part)))
            at += part
        else:
            h, w = part
            rows, columns = np.divmod(np.arange(h * w), w)
            parts.append(at + np.stack([np.zeros_like(rows), rows, columns]))
            at += max(h, w)
    positions = np.concatenate(parts, axis=1, dtype=np.int64)
    positions.flags.writeable = False  # shared by all prompts of this layout
    return positions


def visual_tokens(width: int, height: int, min_pixels: int, max_pixels: int) -> int:
    """Visual tokens of an image, computed as transformers' `smart_resize` does (which cannot be had without torch)."""
    side = TOKEN_SIDE
    h, w = round(height / side), round(width / side)
    if h * w * side**2 > max_pixels:
        shrink = math.sqrt((height * width) / max_pixels)
        h, w = (max(1, math.floor(length / shrink / side)) for length in (height, width))
    elif h * w * side**2 < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        h, w = (math.ceil(length * grow / side) for length in (height, width))
    return h * w
