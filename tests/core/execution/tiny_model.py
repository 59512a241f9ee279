"""A model without weights, as a plugin's file: it answers by the text of a prompt."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence

from leverplus_core import AnswerLogprob, DataError, Decoding, LeverplusWarning, Model, Prompt, PromptError, hookimpl


class Tiny(Model):
    """Answers with what it is told to do."""

    nap: float = 0.0
    checkpoint: str = ""

    def identity(self) -> dict[str, object]:
        """The settings and, of `checkpoint`, the content of the variable of its name."""
        return {**self.model_dump(mode="json"), "content": os.environ.get(self.checkpoint, "")}

    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> list[AnswerLogprob]:
        """The sum is minus the length of the answer."""
        return [AnswerLogprob(-float(len(answer)), 1 + end_mark) for answer in answers]

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """The text of each prompt, or what it says to do."""
        time.sleep(self.nap)
        return [self._answer(prompt) for prompt in prompts]

    def _answer(self, prompt: Prompt) -> str:
        text = str(prompt.turns[0].content[0])
        if text == "process":
            return str(os.getpid())
        if text == "gpu":
            return os.environ.get("CUDA_VISIBLE_DEVICES", "")
        if text == "print":
            print("printed by the model")
        if text == "warn":
            warnings.warn("the model warns", LeverplusWarning, stacklevel=1)
        if text == "refuse":
            raise PromptError(prompt, "the prompt is too long.", "Show fewer.")
        if text == "data":
            raise DataError("the data are bad.")
        if text == "bug":
            return str(1 // 0)
        if text == "exit":
            os._exit(3)
        return text


@hookimpl
def leverplus_models() -> dict[str, str]:
    """The model."""
    return {"tiny": "tiny_model:Tiny"}
