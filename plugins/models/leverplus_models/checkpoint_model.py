"""What the models of this room share: a checkpoint in transformers' format, whose prompts the scoring engine runs.

torch and transformers are imported when weights are loaded: settings, identity and planning need neither.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from leverplus_core import (
    AnswerLogprob,
    Attention,
    DataError,
    Decoding,
    Dtype,
    Floats,
    LeverplusWarning,
    Model,
    Pretrained,
    Prompt,
    PromptError,
    SupportsHiddenStates,
    SupportsLookahead,
    load_model,
)
from leverplus_models.engine.rows import Row
from leverplus_models.engine.settings import EngineSettings

if TYPE_CHECKING:
    from torch import Tensor

    from leverplus_models.engine.engine import Engine, Features, Scoring


Asked = tuple[list[Prompt], list[str], bool]
"""The arguments of `logprob`."""


class CheckpointModel(Pretrained, SupportsHiddenStates, SupportsLookahead, Model):
    """A checkpoint and its tokenizer behind the scoring engine; a subclass turns a prompt into a row of tokens."""

    architecture: ClassVar[str]
    """Name of the class in transformers that loads the weights."""
    texts_cached: ClassVar[int] = 1 << 16
    """How many texts are remembered with their tokens."""

    dtype: Dtype = Field("float32", description="auto = the checkpoint's own")
    attention: Attention = Field(
        "sdpa", description="eager = transformers' own, for parity tests: no prefix is shared, which is slow"
    )
    engine: EngineSettings = Field(default_factory=EngineSettings, description="how prompts are run; speed only")

    _expected: Asked | None = PrivateAttr(None)
    _begun: tuple[Asked, Scoring] | None = PrivateAttr(None)

    @abstractmethod
    def _row(self, prompt: Prompt) -> Row: ...

    def _rows(self, prompts: Sequence[Prompt]) -> list[Row]:
        return [self._row(prompt) for prompt in prompts]

    @property
    @abstractmethod
    def _end_mark(self) -> int:
        """The token that ends an answer."""

    @abstractmethod
    def _before_answer(self, prompt: Prompt) -> tuple[str, str]:
        """The text before the answer, from where it is tokenized on its own, and spaces that belong to the answer."""

    def identity(self) -> dict[str, object]:
        """The settings that decide a result, and the checkpoint's content."""
        settings = self.model_dump(mode="json", exclude={"path", "revision", "device", "engine"})
        return {**settings, "checkpoint": self.checkpoint_content}

    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> list[AnswerLogprob]:
        """Log-probability of each answer as the prompt's continuation, with or without the token that ends it.

        Raises DataError for an empty answer, and for a prompt that the model cannot read.
        """
        asked = (list(prompts), list(answers), end_mark)
        (begun, scoring), self._begun = self._begun or (None, None), None
        if scoring is None or begun != asked:
            scoring = self._begin(asked)
        found = self._engine.finish(scoring, self._begin_expected if self._engine.ahead else None)
        self._settle(wait=self._begun is None)
        return found

    def expect(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> None:
        """Begin these, on a device, once the call before them has started all it has to compute."""
        self._expected = (list(prompts), list(answers), end_mark)

    def _begin(self, asked: Asked) -> Scoring:
        prompts, answers, end_mark = asked
        ends = (self._end_mark,) if end_mark else ()
        targets = [(*self._answer_ids(*pair), *ends) for pair in zip(prompts, answers, strict=True)]
        rows = self._checked(prompts, [len(target) for target in targets])
        return self._engine.start(rows, targets)

    def _begin_expected(self) -> None:
        asked, self._expected = self._expected, None
        if asked is not None:
            with suppress(Exception):  # what is wrong with these prompts is raised by their own call
                self._begun = asked, self._begin(asked)

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """The text that follows each prompt. The checkpoint's repetition penalty and sampling settings are not used.

        Raises DataError for a prompt that the model cannot read.
        """
        rows = self._checked(prompts, [decoding.max_new_tokens] * len(prompts))
        new = self._engine.generate(rows, decoding)
        self._settle()
        return [str(self.tokenizer.decode(ids, skip_special_tokens=True)) for ids in new]

    def last_hidden_state(self, prompts: Sequence[Prompt]) -> Floats:
        """(N, D) the input of the output layer after each prompt. Raises DataError as `generate` does."""
        rows = self._checked(prompts, [1] * len(prompts))
        found = self._engine.last_hidden_state(rows)
        self._settle()
        return found

    def _checked(self, prompts: Sequence[Prompt], answers: Sequence[int]) -> list[Row]:
        """The rows of prompts, once the engine has been compared with the model; `answers` are lengths in tokens.

        Raises PromptError for a prompt that is longer, with its answer, than what the model was made for.
        """
        rows = self._rows(prompts)
        for prompt, row, answer in zip(prompts, rows, answers, strict=True):
            if len(row.ids) + answer > self._context_length:
                raise PromptError(
                    prompt,
                    f"a prompt of {len(row.ids):,} tokens, with {answer} for its answer, does not fit '{self.path}', "
                    f"which reads {self._context_length:,}.",
                    "Shorten the question, use fewer shots, or a model with a longer context.",
                )
        self._verify(prompts, rows)
        return rows

    def _verify(self, prompts: Sequence[Prompt], rows: Sequence[Row]) -> None:
        """At the start, compare what the engine computes with the model itself."""
        self._engine.verify(rows)

    @cached_property
    def _context_length(self) -> int:
        config = self._model.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 1 << 30)

    @cached_property
    def _model(self) -> Any:
        import transformers

        return load_model(
            getattr(transformers, self.architecture),
            self.checkpoint,
            revision=self.revision,
            dtype=self.dtype,
            device=self.device,
            attention=self.attention,
        )

    @cached_property
    def _engine(self) -> Engine:
        from leverplus_models.engine.engine import end_tokens

        eos = end_tokens(self._model, self.tokenizer)
        pad = self.tokenizer.pad_token_id
        return self._make_engine(eos, eos[0] if pad is None else pad)

    def _make_engine(self, eos: Sequence[int], pad: int) -> Engine:
        from leverplus_models.engine.engine import Engine

        return Engine(self._model, eos, pad, self.engine, self._features())

    def _features(self) -> Features | None:
        """Encodes the images of prompts, for a model that reads images."""
        return None

    def _settle(self, wait: bool = True) -> None:
        """At the end of a call: say what other threads met; with `wait`, once they have done what they were given."""

    @cached_property
    def _tokenize(self) -> Callable[[str], tuple[int, ...]]:
        return lru_cache(maxsize=self.texts_cached)(self._ids)

    def _ids(self, text: str) -> tuple[int, ...]:
        # A control token written in a question is read as the characters it consists of.
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def _answer_ids(self, prompt: Prompt, answer: str) -> tuple[int, ...]:
        """Tokenized after what precedes; alone if the tokenizer would merge the two: `generate` sees the prompt so."""
        if not answer.strip():
            raise DataError("an empty answer has no log-probability.", "Every question needs an answer.")
        before, spaces = self._before_answer(prompt)
        head, whole = self._tokenize(before), self._tokenize(before + spaces + answer)
        follows = whole[: len(head)] == head and len(whole) > len(head)
        return whole[len(head) :] if follows else self._tokenize(spaces + answer)


def say(what: str) -> None:
    """A LeverplusWarning, raised where the caller of the caller stands."""
    warnings.warn(what, LeverplusWarning, stacklevel=3)


def unit_rows(rows: Sequence[Tensor], model: Any) -> Floats:
    """(N, D) vectors (D,), each divided by its length; (0, D) of the model's width where there are none."""
    import torch
    from torch.nn import functional as F

    if not rows:
        return np.zeros((0, model.config.get_text_config().hidden_size), dtype=np.float32)
    return np.asarray(F.normalize(torch.stack(list(rows)), dim=-1).cpu().numpy(), dtype=np.float32)
