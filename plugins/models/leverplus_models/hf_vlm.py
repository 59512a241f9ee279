"""Any vision-language model that transformers loads: its own processor and chat template, several images a prompt.

What `AutoModelForImageTextToText` and `AutoProcessor` load is run as transformers runs it. The chat template renders
the prompt (`vision_language.chat`), images are encoded once (`vision_language.images`), prompts are batched by length.
Architectures that are listed share prefixes in the tree, if two prompts agree (`engine.self_check`); which family takes
which path is told in `docs/models.md`. Code that a checkpoint brings is never run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from leverplus_core import (
    CheckpointError,
    Floats,
    Image,
    LeverplusError,
    PictureSettings,
    Prompt,
    SupportsCacheFolder,
    SupportsEmbeddings,
    find_checkpoint,
    load_pretrained,
    read_json,
)
from leverplus_models.checkpoint_model import CheckpointModel, say, unit_rows
from leverplus_models.engine.rows import Ints, Row, Span

if TYPE_CHECKING:
    from torch import Tensor

    from leverplus_models.engine.engine import Engine, Features
    from leverplus_models.vision_language.chat import Chat
    from leverplus_models.vision_language.images import Images

REFUSED = {
    "paligemma": "reads one image and one text, so it can be shown no demonstrations",
    "mllama": "reads images through cross-attention whose masks are made for whole prompts",
}
"""Architectures that transformers loads and that cannot be asked, with the reason."""
OPTIONAL = ("torchvision", "num2words", "jinja2", "timm")
"""Packages that processors and templates want."""
IMAGES_PER_BATCH = 256
"""Images whose features are in memory together while `embed_images` averages them."""


class HfVlm(PictureSettings, SupportsEmbeddings, SupportsCacheFolder, CheckpointModel):
    """Any vision-language model of transformers: a local folder or a hub id."""

    architecture: ClassVar[str] = "AutoModelForImageTextToText"

    path: str = Field(
        "HuggingFaceTB/SmolVLM-Instruct", description="a local folder or a hub id, for AutoModelForImageTextToText"
    )
    max_pixels: int | None = Field(
        None, gt=0, description="larger pictures are shrunk before the processor; null = the processor alone decides"
    )
    split_images: bool = Field(
        False, description="let the processor cut large images into tiles, each with as many tokens as the image"
    )

    _cache_folder: Path | None = PrivateAttr(None)
    _compared: bool = PrivateAttr(False)

    def check_machine(self) -> None:
        """Raises CheckpointError for a device or a checkpoint that is not there, and for a model that cannot be asked,
        as far as its config is on this machine."""
        super().check_machine()
        config = Path(find_checkpoint(self.path)) / "config.json"
        kind = str(read_json(config).get("model_type")) if config.is_file() else ""
        if kind in REFUSED:
            raise _refusal(self.path, kind, REFUSED[kind])

    def identity(self) -> dict[str, object]:
        """The settings that decide a result, and the checkpoint's content, in which processor and template are."""
        found = {**super().identity(), "image_backend": "pil"}
        del found["max_file_megapixels"]  # decides what is refused, not what is read
        return found

    def use_cache_folder(self, folder: Path) -> None:
        """Keep encoded images below `folder`, unless `engine.image_cache_dir` names another place."""
        self._cache_folder = folder / "image-features"

    def embed_images(self, images: Sequence[Image]) -> Floats:
        """(N, D) the mean visual token of each image, normalized.

        Raises DataError for one that cannot be read, CheckpointError for a model without `get_image_features`.
        """
        if not self._images.encoded:
            raise CheckpointError(
                f"'{self.path}' shows no features of an image.", "Take another encoder, such as clip or sentence."
            )
        keys = [self._images.inspect(self.image_path(image)).key for image in images]
        rows: list[Tensor] = []
        for start in range(0, len(keys), IMAGES_PER_BATCH):
            batch = keys[start : start + IMAGES_PER_BATCH]
            features = self._images.visual_tokens(batch)
            rows += [features[key].float().mean(0) for key in batch]
        self._settle()
        return unit_rows(rows, self._model)

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """(N, D) the mean input embedding of each text's tokens, normalized: a bag of words, blind to order."""
        import torch

        embedding = self._model.get_input_embeddings()
        ids = [self._tokenize(text) or self._tokenize(" ") or (self._end_mark,) for text in texts]
        with torch.inference_mode():
            rows = [embedding(torch.tensor(row, device=self._model.device)).float().mean(0) for row in ids]
        return unit_rows(rows, self._model)

    # --- the checkpoint -----------------------------------------------------------------------------------------------

    @cached_property
    def checkpoint(self) -> str:
        """What `from_pretrained` takes, once the config says that the model can be asked.

        Raises CheckpointError for a model that cannot, with the reason.
        """
        from transformers import AutoConfig
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

        config = load_pretrained(AutoConfig, self.path, self.revision)
        kind = config.model_type
        reason = REFUSED.get(kind)
        if reason is None and kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            reason = "is no model that transformers takes from images and text to text"
        if reason is None and getattr(config, "is_encoder_decoder", False):
            reason = "has an encoder for text, so an answer does not continue its prompt"
        if reason is not None:
            raise _refusal(self.path, kind, reason)
        return find_checkpoint(self.path)

    @cached_property
    def processor(self) -> Any:
        """The checkpoint's processor, with the image processor that needs Pillow only: equal pixels everywhere.

        Raises CheckpointError, which names a package that it wants and that is not installed.
        """
        try:
            from transformers import AutoImageProcessor, AutoProcessor

            processor = self.pretrained(AutoProcessor)
            if not type(processor.image_processor).__name__.endswith("Pil"):
                processor.image_processor = self.pretrained(_PilImageProcessor(AutoImageProcessor))
            return processor
        except (LeverplusError, ImportError) as error:
            absent = [name for name in OPTIONAL if name in _whole_message(error).lower() and find_spec(name) is None]
            if absent:
                raise CheckpointError(
                    f"the processor of '{self.path}' needs {' and '.join(absent)}, which is not installed.",
                    "Run: pip install 'leverplus[vlm]'",
                ) from error
            raise

    @cached_property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @cached_property
    def _chat(self) -> Chat:
        from leverplus_models.vision_language.chat import Chat

        config = self._model.config
        image_id = getattr(config, "image_token_id", None)
        image_id = getattr(config, "image_token_index", None) if image_id is None else image_id
        if image_id is None:
            raise CheckpointError(f"the config of '{self.path}' names no image token.", "hf_vlm needs one.")
        return Chat(self.processor, self.path, int(image_id), self.split_images)

    @cached_property
    def _images(self) -> Images:
        from leverplus_models.vision_language.images import Images

        version = getattr(self._model.config, "_commit_hash", None) or self.checkpoint_content
        folder = self.engine.image_cache_dir or self._cache_folder
        wanted = None if self.max_pixels is None else self._shrunk
        return Images(self._model, self._chat, version, self.engine, folder, self, wanted)

    def _shrunk(self, width: int, height: int) -> tuple[int, int]:
        assert self.max_pixels is not None
        scale = min(1.0, math.sqrt(self.max_pixels / (width * height)))
        return max(1, math.floor(width * scale + 1e-6)), max(1, math.floor(height * scale + 1e-6))

    def _make_engine(self, eos: Sequence[int], pad: int) -> Engine:
        from leverplus_models.engine.engine import Engine

        return Engine(self._model, eos, pad, self.engine, self._features(), self._inputs)

    def _features(self) -> Features:
        def features(keys: Sequence[str], upcoming: Sequence[str]) -> Mapping[str, Tensor]:
            parts = {key: key.split(":") for key in keys}
            images = self._images.visual_tokens(list(dict.fromkeys(image for image, _, _ in parts.values())))
            return {key: images[image][int(first) : int(end)] for key, (image, first, end) in parts.items()}

        return features

    def _settle(self, wait: bool = True) -> None:
        self._images.cache.settle(wait)

    # --- answers ------------------------------------------------------------------------------------------------------

    def _before_answer(self, prompt: Prompt) -> tuple[str, str]:
        return self._chat.after_control(self._chat.render(prompt)), self._chat.answer_frame[0]

    @cached_property
    def _end_mark(self) -> int:
        ids = self.tokenizer(self._chat.answer_frame[1], add_special_tokens=False)["input_ids"]
        return next((token for token in ids if token in self._engine.eos), self._engine.eos[0])

    # --- prompts ------------------------------------------------------------------------------------------------------

    def _row(self, prompt: Prompt) -> Row:
        text = self._chat.render(prompt)
        images = [
            self._images.inspect(self.image_path(part))
            for turn in prompt.turns
            for part in turn.content
            if isinstance(part, Image)
        ]
        layout = tuple((turn.role, len(turn.content)) for turn in prompt.turns)
        row = self._row_of_pieces(text, images) if self._chat.exact else None
        if row is None or not self._chat.compared(layout):
            pictures = [self._images.picture(image.key) for image in images]
            ids = np.asarray(self._chat.own_inputs(text, pictures)["input_ids"][0], dtype=np.int64)
            if row is None or not np.array_equal(row.ids, ids):
                if self._chat.exact:
                    say(f"the processor of '{self.path}' is called for every prompt: its tokens depend on the whole.")
                self._chat.exact = self._images.encoded = False
                self._engine.share_nothing()
                row = self._own_row(ids, [image.key for image in images])
        rope = self._images.rope
        return row if rope is None else Row(row.ids, self._positions(rope, row, images), row.images)

    def _row_of_pieces(self, text: str, images: Sequence[Any]) -> Row:
        pieces = self._chat.ids(text, [image.tokens for image in images])
        parts, spans, at = [pieces[0]], [], len(pieces[0])
        for image, piece in zip(images, pieces[1:], strict=True):
            taken = 0
            for first, end in _runs(image.tokens.visual):
                spans.append(Span(at + first, at + end, f"{image.key}:{taken}:{taken + end - first}"))
                taken += end - first
            parts += [image.tokens.ids, piece]
            at += len(image.tokens.ids) + len(piece)
        ids = np.concatenate(parts)
        return Row(ids, np.arange(len(ids), dtype=np.int64)[None], tuple(spans))

    def _own_row(self, ids: Ints, keys: Sequence[str]) -> Row:
        """The row of ids that the processor made of the whole; its images are known together only."""
        spans, taken = [], 0
        for first, end in _runs(ids == self._chat.image_id):
            spans.append(Span(first, end, f"{'+'.join(keys)}:{taken}:{taken + end - first}"))
            taken += end - first
        return Row(ids, np.arange(len(ids), dtype=np.int64)[None], tuple(spans))

    def _positions(self, rope: Any, row: Row, images: Sequence[Any]) -> Ints:
        import torch

        types = torch.from_numpy((row.ids == self._chat.image_id).astype(np.int64))[None]
        layout = (
            {name: torch.cat([image.layout[name] for image in images]) for name in images[0].layout} if images else {}
        )
        found, _ = rope(torch.from_numpy(row.ids)[None], mm_token_type_ids=types, **layout)
        return np.asarray(found[:, 0].cpu().numpy(), dtype=np.int64)

    def _images_of(self, row: Row) -> list[str]:
        """Keys of the images of a row, in order."""
        parts = (span.key.split(":") for span in row.images)
        return [key for images, first, _ in parts if first == "0" for key in images.split("+")]

    def _inputs(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What the model's own `forward` and `generate` take of `rows`, padded on the left."""
        import torch

        length, device = max(len(row.ids) for row in rows), self._model.device
        ids = np.full((len(rows), length), self._engine.pad_id, dtype=np.int64)
        mask, visual = np.zeros_like(ids), np.zeros_like(ids)
        for n, row in enumerate(rows):
            start = length - len(row.ids)
            ids[n, start:], mask[n, start:] = row.ids, 1
            for span in row.images:
                visual[n, start + span.start : start + span.end] = 1
        found = {"input_ids": ids, "attention_mask": mask}
        images = [self._images_of(row) for row in rows]
        every = [key for keys in images for key in keys]
        known = {image.key: image for image in self._images.known(list(dict.fromkeys(every)))}
        for name, value in next((image.tokens.types for image in known.values()), {}).items():
            found[name] = value * visual
        if self._images.rope is None:
            found["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)
        tensors: dict[str, Any] = {name: torch.from_numpy(array).to(device) for name, array in found.items()}
        if not every:
            return tensors
        if not self._images.encoded:
            return {**tensors, **self._images.pixels(images)}
        layout = {
            name: torch.cat([known[key].layout[name] for key in every]).to(device) for name in known[every[0]].layout
        }
        return {**tensors, **layout, "mm_encoder_outputs": {"image": self._images.encoder_output(every)}}

    # --- the model itself ---------------------------------------------------------------------------------------------

    def _verify(self, prompts: Sequence[Prompt], rows: Sequence[Row]) -> None:
        """Compare, once, what is computed of the shortest and the longest prompt with transformers' own way.

        Encoded images that do not give the same are given up for pixels. Raises CheckpointError where these do not
        either.
        """
        from leverplus_models.engine.self_check import tolerance

        if not self._compared and rows:
            self._compared = True
            order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
            asked = list(dict.fromkeys((order[0], order[-1])))
            own = self._own_logits([prompts[i] for i in asked])
            apart = self._apart(own, [rows[i] for i in asked])
            if self._images.encoded and not apart <= tolerance(self._model.dtype):
                say(f"'{self.path}' reads the pixels of every prompt: with encoded images it computes something else.")
                self._images.encoded = False
                self._engine.share_nothing()
                apart = self._apart(own, [rows[i] for i in asked])
            if not apart <= tolerance(self._model.dtype):
                raise CheckpointError(
                    f"'{self.path}' gives other log-probabilities than by itself: they differ by {apart:.2g}.",
                    "This architecture cannot be used.",
                )
        super()._verify(prompts, rows)

    def _own_logits(self, prompts: Sequence[Prompt]) -> list[Tensor]:
        """(V,) logits after each prompt, as transformers' documentation computes them.

        Raises CheckpointError for a model that cannot be called so.
        """
        import torch

        from leverplus_models.engine.device import out_of_memory, too_large

        found: list[Tensor] = []
        for prompt in prompts:
            parts = [part for turn in prompt.turns for part in turn.content if isinstance(part, Image)]
            pictures = [self._images.picture(self._images.inspect(self.image_path(part)).key) for part in parts]
            text = self._chat.render(prompt)
            try:
                inputs = self._images.on_device(self._chat.own_inputs(text, pictures))
                with torch.inference_mode():
                    found.append(self._model(**inputs, logits_to_keep=1, use_cache=False).logits[0, -1])
            except Exception as error:
                if out_of_memory(error):
                    raise too_large("a prompt", self._model.device, error) from error
                said = (str(error) or type(error).__name__).splitlines()[0]
                raise CheckpointError(
                    f"'{self.path}', a {self._model.config.model_type}, does not take the prompt that its processor "
                    f"makes: {said[:200]}",
                    "docs/models.md names families that work.",
                ) from error
        return found

    def _apart(self, own: Sequence[Tensor], rows: Sequence[Row]) -> float:
        from leverplus_models.engine.self_check import difference

        try:
            return max(difference(logits, self._engine.own_logits(row)) for logits, row in zip(own, rows, strict=True))
        except LeverplusError:
            raise
        except Exception:  # encoded images in a form that this model does not take
            if not self._images.encoded:
                raise
            return math.inf


class _PilImageProcessor:
    """`AutoImageProcessor` with the variant that needs no torchvision, as `Pretrained.pretrained` takes it."""

    def __init__(self, auto: Any) -> None:
        self.auto = auto

    def from_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        return self.auto.from_pretrained(*args, backend="pil", **kwargs)


def _refusal(path: str, kind: str, reason: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint '{path}' is a {kind}, which {reason}.", "docs/models.md names families that work."
    )


def _runs(marked: Any) -> list[tuple[int, int]]:
    """(first, end) of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(marked, dtype=np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _whole_message(error: BaseException | None) -> str:
    """What an error and those that led to it say."""
    said = []
    while error is not None:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    return " ".join(said)
