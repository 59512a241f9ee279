"""Qwen2.5-VL (Bai et al. 2025, arXiv:2502.13923) through transformers: the demo checkpoint, a folder or a hub id.

What the model reads is Qwen's own chat format, and what is scored is located in the real multimodal input. Four
things that the stock path does again and again are done once: an image is encoded once, a piece of text is
tokenised once, positions are computed once a layout, and logits are computed at answer positions only.
torchvision is not needed: images go through the PIL image processor, everywhere the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pil
from PIL import ImageOps
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from leverplus_core.errors import CheckpointError, DataError
from leverplus_core.parts import Floats, Vlm
from leverplus_core.records import AnswerLogprob, Decoding, Image, Prompt
from leverplus_models.batching import CausalBatches, Ints, Row
from leverplus_models.engine import EngineSettings
from leverplus_models.weights import Attention, Dtype, content, end_marks, load, load_model, local_folder, pick_device

DEMO = Path(__file__).parent / "demo" / "checkpoint"
PATCHES_PER_BATCH = 16_384
"""Patches that go through the vision tower at once: 1,024 demo pictures, or ten photos of 640 x 480."""

PIXELS_PER_TOKEN = (14 * 2) ** 2
"""A patch is 14 pixels wide, and 2 x 2 patches become one visual token, in every Qwen2.5-VL."""
WIDTH_3B = 2048
"""Width of a visual token of the 3B model, for a plan made before the checkpoint is there."""

CONTROL = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")

Piece = str | Image | tuple[str]
"""A text, an image, or one of Qwen's control tokens in a tuple, so that no text can pass for a control token."""


class Qwen25Vl(Vlm):
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

    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[AnswerLogprob]:
        """Log-probability of each answer right after `assistant\\n`, with no end mark. DataError for an empty one."""
        targets = [self._answer_ids(answer) for answer in answers]
        results: list[AnswerLogprob] = []
        for start, rows in self._rows(prompts):
            results += self._batches.logprob(rows, targets[start : start + len(rows)])
        return results

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """What follows each prompt. The checkpoint's repetition penalty and sampling settings are not used."""
        texts: list[str] = []
        for _, rows in self._rows(prompts):
            texts += self._tokenizer.batch_decode(self._batches.generate(rows, decoding), skip_special_tokens=True)
        return texts

    def embed_images(self, images: Sequence[Image]) -> Floats:
        """(N, D) the mean visual token of each image, at length 1."""
        rows: list[Tensor] = []
        for start in range(0, len(images), self._cache_room):
            part = images[start : start + self._cache_room]
            features = self._features(part)
            rows += [features[_path(image)][1].float().mean(0) for image in part]
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
        """Of an image of `max_pixels`, where `engine.image_cache_dir` is set."""
        if self.engine.image_cache_dir is None or self.max_pixels is None:
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
    def _batches(self) -> CausalBatches:
        eos = end_marks(self._model, self._tokenizer)
        return CausalBatches(
            self._model, eos, self._tokenizer.pad_token_id, self.engine.tokens_per_batch, self._control["<|image_pad|>"]
        )

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

    def _rows(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, list[Row]]]:
        """Tokenised prompts in stretches whose images fit the cache: (number of the first prompt, rows)."""
        start = 0
        while start < len(prompts):
            images: dict[str, Image] = {}
            end = start
            while end < len(prompts):
                new = {_path(i): i for turn in prompts[end].turns for i in turn.content if isinstance(i, Image)}
                if images and len(images | new) > self._cache_room:
                    break
                images |= new
                end += 1
            features = self._features(list(images.values()))
            yield start, [self._row(prompt, features) for prompt in prompts[start:end]]
            start = end

    def _row(self, prompt: Prompt, features: dict[str, tuple[tuple[int, int], Tensor]]) -> Row:
        ids: list[int] = []
        layout: list[int | tuple[int, int]] = []  # lengths of text, and grids of images
        visual: list[Tensor] = []
        counted = 0
        for piece in pieces(prompt):
            if isinstance(piece, tuple):
                ids.append(self._control[piece[0]])
            elif isinstance(piece, str):
                ids += self._tokenize(piece)
            else:
                grid, tokens = features[_path(piece)]
                layout += [len(ids) - counted, grid]
                ids += [self._control["<|image_pad|>"]] * len(tokens)
                counted = len(ids)
                visual.append(tokens)
        layout.append(len(ids) - counted)
        return Row(np.array(ids, dtype=np.int64), rope_positions(tuple(layout)), tuple(visual))

    # --- images -------------------------------------------------------------------------------------------------------

    @cached_property
    def _cache(self) -> OrderedDict[tuple[str, int, int], tuple[tuple[int, int], Tensor]]:
        return OrderedDict()

    @cached_property
    def _cache_room(self) -> int:
        """How many images of the largest size fit `image_cache_mb`."""
        processor, text = self._image_processor, self._model.config.text_config
        tokens = processor.size.longest_edge // (processor.patch_size * processor.merge_size) ** 2
        each = max(tokens, 1) * text.hidden_size * self._model.dtype.itemsize
        return max(1, int(self.engine.image_cache_mb * 2**20 // each))

    @torch.inference_mode()
    def _features(self, images: Sequence[Image]) -> dict[str, tuple[tuple[int, int], Tensor]]:
        """Path -> (token grid (h, w), visual tokens (h * w, D)) of images that fit the cache; each is encoded once."""
        # A file that is written anew is another image.
        keys = {path: _stamp(path) for path in dict.fromkeys(map(_path, images))}
        side = self._image_processor.merge_size
        waiting: list[tuple[tuple[str, int, int], Tensor, tuple[int, int]]] = []
        size = 0

        def encode() -> None:
            pixels = torch.cat([p for _, p, _ in waiting]).to(self._model.device)
            grids = torch.tensor([(1, *grid) for _, _, grid in waiting], device=self._model.device)
            encoded = self._model.get_image_features(pixels, grids).pooler_output
            for (key, _, (h, w)), tokens in zip(waiting, encoded, strict=True):
                self._cache[key] = ((h // side, w // side), tokens.clone())
            waiting.clear()

        for path, key in keys.items():
            if key in self._cache:
                self._cache.move_to_end(key)
                continue
            pixels, grid = self._read(path)
            if waiting and size + len(pixels) > PATCHES_PER_BATCH:
                encode()
                size = 0
            waiting.append((key, pixels, grid))
            size += len(pixels)
        if waiting:
            encode()
        found = {path: self._cache[key] for path, key in keys.items()}
        while len(self._cache) > self._cache_room:
            self._cache.popitem(last=False)
        return found

    def _read(self, path: str) -> tuple[Tensor, tuple[int, int]]:
        """Patches (P, 1176) of an image file, and its patch grid (h, w)."""
        try:
            with Pil.open(path) as file:
                picture = (ImageOps.exif_transpose(file) or file).convert("RGB")
            out = self._image_processor(images=[picture], return_tensors="pt")
        except (OSError, ValueError, SyntaxError, Pil.DecompressionBombError) as error:
            raise DataError(
                f"image '{path}' cannot be read: {error}.", "Replace the file or drop its questions."
            ) from error
        _, h, w = out["image_grid_thw"][0].tolist()
        return out["pixel_values"], (h, w)


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


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        stat = Path(path).stat()
    except OSError as error:
        raise DataError(f"image '{path}' cannot be read: {error.strerror}.", "Check the image folder.") from error
    return path, stat.st_mtime_ns, stat.st_size


def _unit(rows: Sequence[Tensor], model: Any) -> Floats:
    if not rows:
        return np.zeros((0, model.config.text_config.hidden_size), dtype=np.float32)
    return np.asarray(F.normalize(torch.stack(list(rows)), dim=-1).cpu().numpy(), dtype=np.float32)
