"""What the recipe's own model does in a second on its own device, from thirty prompts: hours that are not assumed.

The prompts are those of a search's second step: of one question, each pair of one of two demonstrations and one of
fifteen others. They are asked without the response cache, and nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from leverplus_core.errors import DataError
from leverplus_core.metrics import most_frequent
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.plan import Throughput
from leverplus_core.processes import set_threads
from leverplus_core.records import Demonstration, Question
from leverplus_core.scoring.prompt import build_prompt
from leverplus_core.seeding import rng

FIRST, OTHERS = 2, 15
"""Demonstrations in the first place of a prompt, and in the second."""
UNTIMED_ANSWERS = 2
"""Answers that are generated before any are timed."""


@dataclass(frozen=True)
class Probe:
    """Prompts of two demonstrations, seconds of their log-probabilities (images known) and of their answers, and the
    seconds that the log-probabilities took longer when their images had not been seen; and seconds of the round before.
    """

    device: str
    prompts: int
    images: int
    logprob_s: float
    answer_s: float
    image_s: float
    untimed_s: float

    @property
    def throughput(self) -> Throughput:
        """Rates for a plan. Images that took no measurable time count a thousandth of the log-probabilities' time."""
        images = self.images / max(self.image_s, self.logprob_s / 1000)
        note = f"measured: {self.prompts} prompts{f' on {self.device}' if self.device else ''}"
        return Throughput(self.prompts / self.logprob_s, images, self.prompts / self.answer_s, note)

    def values(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def probe(context: RunContext) -> Probe:
    """Time the model of a recipe, after a round that is not timed and loads its weights.

    The timed prompts show other demonstrations than that round, where the dataset has enough of them. Raises DataError
    for a dataset that is not there or has fewer than three demonstrations for its first train question, and what the
    model raises: CheckpointError for weights that are not there.
    """
    dataset, recipe, model = context.dataset, context.recipe, context.model
    question = _first(dataset.questions("train"))
    allowed = [d for d in dataset.demonstrations() if d.id != question.id and d.image.id != question.image.id]
    if len(allowed) <= FIRST:
        raise DataError(
            f"question '{question.id}' may be shown {len(allowed)} demonstrations: too few to time.",
            "Set dataset.train higher, or give --prompts-per-s.",
        )
    order = rng(recipe.data_seed, "probe", question.id).permutation(len(allowed))
    set_threads(recipe.threads)
    drawn = [allowed[i] for i in order[: 2 * (FIRST + OTHERS)]]
    half = max(FIRST + 1, len(drawn) // 2)
    answer = most_frequent(question.answers)

    decoding = recipe.decoding.decoding()

    def prompts_of(shown: Sequence[Demonstration]) -> list[Any]:
        pairs = [(a, b) for a in shown[:FIRST] for b in shown[FIRST:]]
        return [build_prompt(pair, question, recipe.prompt) for pair in pairs]

    def logprobs(prompts: list[Any]) -> object:
        if not model.supports_logprob():  # nothing that a plan counts asks for them
            return model.generate(prompts, decoding)
        return model.logprob(prompts, [answer] * len(prompts), recipe.scoring.end_mark)

    before, prompts = prompts_of(drawn[:half]), prompts_of(drawn[-half:])
    untimed = _seconds(lambda: (logprobs(before), model.generate(before[:UNTIMED_ANSWERS], decoding)))
    unseen = _seconds(lambda: logprobs(prompts))
    seen = _seconds(lambda: logprobs(prompts))
    answers = _seconds(lambda: model.generate(prompts, decoding))
    images = len({d.image.id for d in drawn[-half:]})  # the question's own has been seen
    return Probe(
        str(getattr(model, "device_name", "")), len(prompts), images, seen, answers, max(unseen - seen, 0.0), untimed
    )


def _first(questions: Sequence[Question]) -> Question:
    if not questions:
        raise DataError("the dataset has no train question.", "Set dataset.train higher.")
    return questions[0]


def _seconds(call: Callable[[], object]) -> float:
    """Results are texts and numbers: a device has finished when they are there."""
    began = time.perf_counter()
    call()
    return max(time.perf_counter() - began, 1e-9)
