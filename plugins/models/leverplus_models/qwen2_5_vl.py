"""Qwen2.5-VL (Bai et al. 2025, arXiv:2502.13923) through transformers: the demo checkpoint, a folder or a hub id.

What the model reads is Qwen's own chat format, and what is scored is located in the real multimodal input. A piece of
text is tokenised once, positions are computed once a layout, images are encoded once (`pictures`), and prompts are run
by the scoring engine. torchvision is not needed: images go through the PIL image processor, everywhere the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil
from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from leverplus_core.errors import CheckpointError, DataError
from leverplus_core.plugins.contracts import (
    Floats,
    Model,
    SupportsCacheFolder,
    SupportsEmbeddings,
    SupportsHiddenStates,
    SupportsPlanning,
)
from leverplus_core.records import AnswerLogprob, Decoding, Image, Prompt
from leverplus_models.batching import Ints, Row, Span
from leverplus_models.engine import Engine, EngineSettings
from leverplus_models.pictures import Pictures
from leverplus_models.weights import Attention, Dtype, content, end_marks, load, load_model, local_folder, pick_device

DEMO = Path(find_spec("leverplus_demo").submodule_search_locations[0]) / "checkpoint"  # type: ignore
IMAGES_AT_ONCE = 256
"""Images whose features are held together while they are made into encoder rows."""

PIXELS_PER_TOKEN = (14 * 2) ** 2
"""A patch is 14 pixels wide, and 2 x 2 patches become one visual token, in every Qwen2.5-VL."""
WIDTH_3B = 2048
"""Width of a visual token of the 3B model, for a plan made before the checkpoint is there."""

CONTROL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

Piece = str | Image | tuple[str]
"""A text, an image, or one of Qwen's control tokens in a tuple, so that no text can pass for a control token."""


class Qwen25Vl(SupportsEmbeddings, SupportsHiddenStates, SupportsPlanning, SupportsCacheFolder, Model):
    """Qwen2.5-VL: the packaged demo checkpoint, a local folder or a hub id."""

    path: str = Field("demo", description="demo = the packaged checkpoint; else a local folder or a hub id")
    revision: str | None = Field(None, description="commit, tag or branch of a hub id; pin it")
    dtype: Dtype = Field("float32", description="auto = the checkpoint's own")
    device: str = Field("auto", description="auto = the first GPU, or cpu")
    attention: Attention = "sdpa"
    min_pixels: int | None = Field(
        56 * 56, gt=0, description="smaller images are enlarged; null = the checkpoint's own"
    )
    max_pixels: int | None = Field(640 * 480, gt=0, description="larger images are shrunk; null = the checkpoint's own")
    engine: EngineSettings = Field(default_factory=EngineSettings, description="how prompts are run; speed only")

    _cache_folder: Path | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _pixels_in_order(self) -> Qwen25Vl:
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError("min_pixels must not be above max_pixels")
        return self

    def identity(self) -> dict[str, object]:
        """The settings that decide a result, the checkpoint's content hash, and the image processor."""
        speed_only = {"path", "revision", "device", "engine"}
        settings = self.model_dump(mode="json", exclude=speed_only)
        return {**settings, "checkpoint": self._content, "image_processor": Qwen2VLImageProcessorPil.__name__}

    def use_cache_folder(self, folder: Path) -> None:
        """Keep encoded images below `folder`, unless the settings name another place."""
        self._cache_folder = folder / "image-features"

    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[AnswerLogprob]:
        """Log-probability of each answer right after `assistant\\n`, with no end mark. DataError for an empty one."""
        targets = [self._answer_ids(answer) for answer in answers]
        return self._engine.logprob([self._row(prompt) for prompt in prompts], targets)

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """What follows each prompt. The checkpoint's repetition penalty and sampling settings are not used."""
        new = self._engine.generate([self._row(prompt) for prompt in prompts], decoding)
        return [str(self._tokenizer.decode(ids, skip_special_tokens=True)) for ids in new]

    def last_hidden_state(self, prompts: Sequence[Prompt]) -> Floats:
        """(N, D) what the output layer reads after each prompt."""
        return self._engine.last_hidden_state([self._row(prompt) for prompt in prompts])

    def embed_images(self, images: Sequence[Image]) -> Floats:
        """(N, D) the mean visual token of each image, at length 1."""
        rows: list[Tensor] = []
        keys = [self._pictures.see(_path(image)).key for image in images]
        for start in range(0, len(keys), IMAGES_AT_ONCE):
            part = keys[start : start + IMAGES_AT_ONCE]
            with self._engine.kernels.lent():
                features = self._pictures.features(part, keys[start + IMAGES_AT_ONCE : start + 2 * IMAGES_AT_ONCE])
            rows += [features[key].float().mean(0) for key in part]
        return _unit(rows, self._model)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """(N, D) the mean input embedding of each text's tokens, at length 1: a bag of words, blind to order."""
        embedding = self._model.get_input_embeddings()
        ids = [self._tokenize(text) or self._tokenize(" ") or (self._control["<|im_end|>"],) for text in texts]
        return _unit(
            [embedding(torch.tensor(row, device=self._model.device)).float().mean(0) for row in ids], self._model
        )

    def image_tokens(self, images: Sequence[Image]) -> int | None:
        """From the sizes that the files' headers say; without files or checkpoint, those of `max_pixels`."""
        sizes = set(filter(None, map(_size, images)))
        try:
            patches = [self._image_processor.get_number_of_image_patches(h, w) for w, h in sizes]
            if patches:
                return int(max(patches)) // int(self._image_processor.merge_size) ** 2
        except CheckpointError:
            pass  # it is not there yet
        return None if self.max_pixels is None else self.max_pixels // PIXELS_PER_TOKEN

    def cached_image_bytes(self) -> int:
        """Of an image of `max_pixels`."""
        if not self.engine.image_cache or self.max_pixels is None:
            return 0
        try:
            config = AutoConfig.from_pretrained(self._source, revision=self.revision, local_files_only=True)
            width = int(config.get_text_config().hidden_size)
        except (CheckpointError, OSError, ValueError):
            width = WIDTH_3B  # the checkpoint is not there yet
        return self.max_pixels // PIXELS_PER_TOKEN * width * (4 if self.dtype == "float32" else 2)

    # --- the checkpoint ---------------------------------------------------------------------------------------------

    @cached_property
    def _source(self) -> str:
        if self.path != "demo":
            local_folder(self.path)  # a folder that is not there is told here, not by a hub
            return self.path
        if not DEMO.is_dir():
            raise CheckpointError(
                "the demo checkpoint is not in this installation.", "Install leverplus from its wheel."
            )
        return str(DEMO)

    @cached_property
    def _content(self) -> str:
        return content(self._source, self.revision)

    @cached_property
    def _checkpoint(self) -> str:
        """The folder or hub id, once its config says that it is a Qwen2.5-VL."""
        config = load(self.path, lambda: AutoConfig.from_pretrained(self._source, revision=self.revision))
        if config.model_type != "qwen2_5_vl":
            raise CheckpointError(
                f"checkpoint '{self.path}' is a {config.model_type}, not a qwen2_5_vl.", "Give a Qwen2.5-VL checkpoint."
            )
        return self._source

    @cached_property
    def _model(self) -> Any:
        return load_model(
            Qwen2_5_VLForConditionalGeneration,
            self._checkpoint,
            self.revision,
            self.dtype,
            self.attention,
            pick_device(self.device),
        )

    @cached_property
    def _tokenizer(self) -> Any:
        return load(self.path, lambda: AutoTokenizer.from_pretrained(self._checkpoint, revision=self.revision))

    @cached_property
    def _image_processor(self) -> Any:
        wanted = {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}
        processor = load(
            self.path,
            lambda: Qwen2VLImageProcessorPil.from_pretrained(self._checkpoint, revision=self.revision or "main"),
        )
        own = {key: getattr(processor.size, key) for key in wanted}
        processor.size = type(processor.size)(**{key: wanted[key] or own[key] for key in wanted})
        return processor

    @cached_property
    def _engine(self) -> Engine:
        eos = end_marks(self._model, self._tokenizer)
        return Engine(self._model, eos, self._tokenizer.pad_token_id, self.engine, self._pictures.features)

    # --- text ---------------------------------------------------------------------------------------------------------

    @cached_property
    def _control(self) -> dict[str, int]:
        ids = {token: self._tokenizer.convert_tokens_to_ids(token) for token in CONTROL}
        if lacking := [token for token, i in ids.items() if i is None or i == self._tokenizer.unk_token_id]:
            raise CheckpointError(
                f"the tokenizer of '{self.path}' has no {lacking[0]}.", "Give a Qwen2.5-VL checkpoint."
            )
        return ids

    @cached_property
    def _tokenize(self) -> Callable[[str], tuple[int, ...]]:
        """Text -> ids, remembered; a control token written in a question is read as the characters it is made of."""
        control = set(self._control.values())

        @lru_cache(maxsize=1 << 16)
        def tokenize(text: str) -> tuple[int, ...]:
            ids = tuple(self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
            if not control.isdisjoint(ids):
                raise DataError(f"the text {text[:80]!r} holds control tokens of the model.", "Remove them.")
            return ids

        return tokenize

    def _answer_ids(self, answer: str) -> tuple[int, ...]:
        if not answer.strip():
            raise DataError("an empty answer has no log-probability.", "Every question needs an answer.")
        # Tokenised as it stands, after the line break; alone where a tokenizer would merge it with what precedes.
        head, whole = self._tokenize("assistant\n"), self._tokenize("assistant\n" + answer)
        return whole[len(head) :] if whole[: len(head)] == head and len(whole) > len(head) else self._tokenize(answer)

    # --- prompts ------------------------------------------------------------------------------------------------------

    def _row(self, prompt: Prompt) -> Row:
        ids: list[int] = []
        layout: list[int | tuple[int, int]] = []  # lengths of text, and grids of images
        images: list[Span] = []
        counted = 0
        for piece in pieces(prompt):
            if isinstance(piece, tuple):
                ids.append(self._control[piece[0]])
            elif isinstance(piece, str):
                ids += self._tokenize(piece)
            else:
                picture = self._pictures.see(_path(piece))
                h, w = picture.grid
                layout += [len(ids) - counted, (h, w)]
                images.append(Span(len(ids), len(ids) + h * w, picture.key))
                ids += [self._control["<|image_pad|>"]] * (h * w)
                counted = len(ids)
        layout.append(len(ids) - counted)
        return Row(np.array(ids, dtype=np.int64), rope_positions(tuple(layout)), tuple(images))

    @cached_property
    def _pictures(self) -> Pictures:
        version = getattr(self._model.config, "_commit_hash", None) or self._content
        return Pictures(
            self._model, self._image_processor, version, self.engine, self.engine.image_cache_dir or self._cache_folder
        )


def pieces(prompt: Prompt) -> Iterator[Piece]:
    """A prompt in Qwen's chat format, up to where the assistant answers: what its chat template renders.

    `<|im_start|>{role}\\n{content}<|im_end|>\\n` a turn, then `<|im_start|>assistant\\n`; an image is
    `<|vision_start|>`, its visual tokens, `<|vision_end|>`. Neighbouring texts are one piece, since a tokenizer may
    merge across their border. No system turn is added where the prompt has none.
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
    """3-D positions (3, L) of texts (their lengths) and images (their token grids), as `get_rope_index` gives.

    A text goes on one by one on all axes. In an image time stands still, rows and columns count from where the text
    stopped, and what follows starts after the longer side.
    """
    here = 0
    parts: list[Ints] = []
    for part in layout:
        if isinstance(part, int):
            parts.append(np.broadcast_to(here + np.arange(part), (3, part)))
            here += part
        else:
            h, w = part
            rows, columns = np.divmod(np.arange(h * w), w)
            parts.append(here + np.stack([np.zeros_like(rows), rows, columns]))
            here += max(h, w)
    positions = np.concatenate(parts, axis=1, dtype=np.int64)
    positions.flags.writeable = False  # shared by every prompt of this layout
    return positions


def _path(image: Image) -> str:
    if image.path is None:
        raise DataError(
            f"image '{image.id}' has no file.", "This model reads pictures: set the dataset's image folder."
        )
    return image.path


def _size(image: Image) -> tuple[int, int] | None:
    """Width and height of an image file that is there, from its header."""
    if image.path is None:
        return None
    try:
        with Pil.open(image.path) as file:
            return file.size
    except (OSError, SyntaxError, ValueError, Pil.DecompressionBombError):
        return None


def _unit(rows: Sequence[Tensor], model: Any) -> Floats:
    if not rows:
        return np.zeros((0, model.config.text_config.hidden_size), dtype=np.float32)
    return np.asarray(F.normalize(torch.stack(list(rows)), dim=-1).cpu().numpy(), dtype=np.float32)
