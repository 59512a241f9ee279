"""Demonstrations and a question become a Prompt: the one place where order, template and separators live.

The same settings serve scoring, training data and evaluation, and are part of every fingerprint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from leverplus_core.records import Demonstration, Image, Prompt, Question, Turn

Order = Literal["left", "right"]


class PromptSettings(BaseModel):
    """How a prompt is laid out.

    `one_turn`: all demonstrations and the question in one user turn (Lever-Plus). `turns`: each demonstration is a
    user turn with the assistant's answer. `order` says how a sequence chosen demonstration by demonstration is shown:
    `left` puts each new one before the others, `right` after them, next to the question.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str = "In conversations, people ask questions about images. Answer each question with one or a few words."
    template: Literal["one_turn", "turns"] = "one_turn"
    order: Order = "right"
    question: str = Field("Question:{question} Short answer:", description="must hold {question}")
    separator: str = Field("", description="text after each demonstration of one_turn")
    stop: tuple[str, ...] = Field(("Question", "Answer", "Short", ", "), description="an answer is cut at the first")

    @field_validator("question")
    @classmethod
    def _names_the_question(cls, value: str) -> str:
        if "{question}" not in value:
            raise ValueError("must hold {question}")
        return value


def build_prompt(demonstrations: Sequence[Demonstration], question: Question, settings: PromptSettings) -> Prompt:
    """The prompt that asks `question` after `demonstrations`, given in the order in which they were chosen."""
    shown = list(demonstrations) if settings.order == "right" else list(demonstrations)[::-1]
    turns: list[Turn] = [Turn("system", (settings.system,))] if settings.system else []

    def ask(text: str) -> str:
        return settings.question.replace("{question}", text)

    if settings.template == "turns":
        for d in shown:
            turns += [Turn("user", (d.image, ask(d.text))), Turn("assistant", (d.answer,))]
        turns.append(Turn("user", (question.image, ask(question.text))))
    else:
        content: list[str | Image] = []
        for d in shown:
            content += [d.image, ask(d.text) + d.answer + settings.separator]
        turns.append(Turn("user", (*content, question.image, ask(question.text))))
    return Prompt(tuple(turns))


def post_process(raw_text: str, settings: PromptSettings) -> str:
    """Cut a generated text at the first stop string or line break; '' when nothing is left."""
    text = raw_text.strip()
    for stop in (*settings.stop, "\n"):
        text = text.split(stop)[0]
    return text.strip().rstrip(".,").strip()
