"""Checks of models and encoders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from leverplus_core.errors import DataError
from leverplus_core.plugins.contracts import (
    Encoder,
    Model,
    SupportsHiddenStates,
    SupportsLookahead,
)
from leverplus_core.recipes.settings import PromptSettings
from leverplus_core.records import Decoding, Image, Prompt
from leverplus_core.scoring.prompt import build_prompt
from leverplus_core.testing.parts import TOLERANCE, check_part, check_rows, raises, returns
from leverplus_core.testing.records import (
    tiny_demonstrations,
    tiny_questions,
)

if TYPE_CHECKING:
    pass


def check_model(part: Model, images: Sequence[Image]) -> None:
    """Results do not depend on the batch, the order or the past; an unreadable image raises DataError.

    `images` need a path and a caption, at least three. Prompts of zero, one and two demonstrations are mixed. A model
    that supports no log-probabilities is held to its answers, one that takes fewer beams is asked with one.
    """
    check_part(part)
    questions = tiny_questions(images[:3])
    demonstrations = tiny_demonstrations(questions)
    settings = PromptSettings()
    shown = [[], demonstrations[1:2], demonstrations[:2]]
    prompts = [build_prompt(d, q, settings) for d, q in zip(shown, questions, strict=True)]
    answers = ["red", "green", "red"]
    scores, most, greedy = part.supports_logprob(), part.most_beams(), Decoding(max_new_tokens=3, num_beams=1)
    returns("model", part, "supports_logprob", scores)
    returns("model", part, "most_beams", most)
    if scores:
        _check_logprob(part, prompts, answers)
    for decoding in (Decoding(max_new_tokens=3), greedy):
        if most is not None and decoding.num_beams > most:
            continue
        texts = part.generate(prompts, decoding)
        returns("model", part, "generate", texts, prompts=prompts)
        assert texts == [part.generate([p], decoding)[0] for p in prompts], "generate depends on the batch"
        assert texts == part.generate(prompts[::-1], decoding)[::-1], "generate depends on the order of prompts"
    assert part.generate([], greedy) == [], "no prompts, no results"
    if isinstance(part, SupportsHiddenStates):
        check_rows("states", lambda rows: part.last_hidden_state([prompts[i] for i in rows]), len(prompts), unit=False)
    lost = Image("lost", path="no/such/picture.png")
    unreadable: list[Prompt] = [build_prompt([], replace(questions[0], image=lost), settings)]
    asked = partial(part.logprob, unreadable, ["red"]) if scores else partial(part.generate, unreadable, greedy)
    assert raises(DataError, asked), "an unreadable image must raise DataError"


def _check_logprob(part: Model, prompts: Sequence[Prompt], answers: Sequence[str]) -> None:
    batch = part.logprob(prompts, answers)
    assert len(batch) == len(prompts), "one result per prompt"
    assert all(r.tokens >= 1 and r.sum <= 0 and math.isfinite(r.sum) for r in batch), f"not log-probabilities: {batch}"
    returns("model", part, "logprob", batch, prompts=prompts, answers=answers)
    marked = part.logprob(prompts, answers, end_mark=True)
    for without, ended in zip(batch, marked, strict=True):
        assert ended.tokens == without.tokens + 1, "with an end mark an answer has one token more"
        assert ended.sum <= without.sum + TOLERANCE, "an answer that ends is at most as probable as its beginning"
    single = [part.logprob([p], [a])[0] for p, a in zip(prompts, answers, strict=True)]
    turned = part.logprob(prompts[::-1], answers[::-1])[::-1]
    for what, other in (("the batch", single), ("the order of prompts", turned)):
        worst = max(abs(a.sum - b.sum) for a, b in zip(batch, other, strict=True))
        assert worst <= TOLERANCE, f"logprob depends on {what}, by {worst:.2e}"
    assert part.logprob([], []) == [], "no prompts, no results"
    if isinstance(part, SupportsLookahead):
        part.expect(prompts, answers)
        ahead = [part.logprob(prompts[:1], answers[:1]), part.logprob(prompts, answers), part.logprob(prompts, answers)]
        worst = max(abs(a.sum - b.sum) for found in ahead for a, b in zip(found, batch, strict=False))
        assert worst <= TOLERANCE, f"logprob depends on what was expected, by {worst:.2e}"


def check_encoder(part: Encoder, images: Sequence[Image], model: Model | None = None) -> None:
    """float32 unit rows, one per input in order, the same in any batch. `model` is for parts with `needs_model`."""
    check_part(part)
    used = model if part.needs_model else None
    assert not part.needs_model or used is not None, "needs_model is set: give check_encoder a model"
    texts = ["What is this?", "red", "a much longer question, with many more words than the other two?"]
    check_rows("texts", lambda rows: part.texts([texts[i] for i in rows], used), len(texts))
    check_rows("images", lambda rows: part.images([images[i] for i in rows], used), len(images))
    returns("encoder", part, "texts", part.texts(texts, used), texts=texts)
    returns("encoder", part, "images", part.images(images, used), images=images)
