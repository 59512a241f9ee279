"""The InfoScore beam search over demonstration sequences, for any model.

InfoScore (Lever-LM, Yang et al., NeurIPS 2024) of adding demonstration c to sequence S for question x with true
answer y is P(y | c, S, x) - P(y | S, x), P the geometric mean of the answer tokens' probabilities, or the same
difference of log P (`form: log`). Higher is better. All questions are searched level by level together, so that
the model sees full batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from leverplus_core.errors import DataError
from leverplus_core.plugins.contracts import Measure
from leverplus_core.recipes.settings import BeamSettings, Form
from leverplus_core.records import Question, ScoredSequence

BLOCK = 1 << 20
"""Prompts that a level of a block asks at most: what a driver holds in memory (some 0.7 GB), and with 64 GPUs still
sixteen chunks of the largest size for each before all wait for the last."""


def in_blocks(questions: Sequence[Question], pool: int, settings: BeamSettings) -> Iterator[Sequence[Question]]:
    """The questions in blocks that are searched one after the other, so that memory does not grow with their number.

    A fixed size: blocks decide which prompts share a batch, and with it the last bits of a result.
    """
    size = max(BLOCK // max(beam_search_cost(pool, settings).values()), 1)
    return (questions[start : start + size] for start in range(0, len(questions), size))


def beam_search(
    measure: Measure, questions: Sequence[Question], pools: Mapping[str, Sequence[str]], settings: BeamSettings
) -> dict[str, list[list[ScoredSequence]]]:
    """For each question id, for each number of shots 1..shots, the kept sequences, best first.

    A sequence's score is the sum of its steps' InfoScores, which telescopes to P(y | S, x) - P(y | x). Ties go to
    the order of the pool. Raises DataError for a pool smaller than the number of shots.
    """
    for question in questions:
        if len(pools[question.id]) < settings.shots:
            raise DataError(
                f"question {question.id} has a pool of {len(pools[question.id])}, fewer than {settings.shots} shots.",
                "Set sampler.k higher or the shots lower.",
            )
    bare = measure.logprobs([(q, ()) for q in questions], "no demonstrations")
    base = {q.id: _value(lp.mean, settings.form) for q, lp in zip(questions, bare, strict=True)}
    kept: dict[str, list[list[ScoredSequence]]] = {q.id: [] for q in questions}
    extensions: dict[str, Sequence[str]] = {q.id: list(pools[q.id]) for q in questions}
    for shots in range(1, settings.shots + 1):
        rows = [
            (q, (*start, new))
            for q in questions
            for start in ([k.demonstrations for k in kept[q.id][-1]] if shots > 1 else [()])
            for new in extensions[q.id]
            if new not in start
        ]
        found = measure.logprobs(rows, f"beam search, {shots} shot{'s' if shots > 1 else ''}")
        level: dict[str, list[ScoredSequence]] = {q.id: [] for q in questions}
        for (q, ids), logprob in zip(rows, found, strict=True):
            level[q.id].append(ScoredSequence(q.id, ids, _value(logprob.mean, settings.form) - base[q.id]))
        for q in questions:
            ranked = sorted(level[q.id], key=lambda k: -k.score)
            kept[q.id].append(ranked[: settings.num_beams])
            if shots == 1 and settings.expand_top_k is not None:
                # At least `shots` demonstrations, so that every sequence can be filled.
                extensions[q.id] = [k.demonstrations[0] for k in ranked[: max(settings.expand_top_k, settings.shots)]]
    return kept


def _value(mean_logprob: float, form: Form) -> float:
    return mean_logprob if form == "log" else math.exp(mean_logprob)


def beam_search_cost(pool: int, settings: BeamSettings) -> dict[int, int]:
    """Log-probabilities that `beam_search` computes for one question, by number of demonstrations (0: none).

    Exact when `num_beams` is not above the number of demonstrations that may extend a sequence; a bound when it is.
    """
    num_beams, shots = settings.num_beams, settings.shots
    extensions = pool if settings.expand_top_k is None else min(pool, max(settings.expand_top_k, shots))
    prompts = {0: 1, 1: pool}
    kept = min(num_beams, pool)
    inside = kept <= extensions  # then every sequence consists of extensions
    for n in range(2, shots + 1):
        if inside:
            prompts[n] = kept * (extensions - (n - 1))
        elif n == 2:
            prompts[n] = kept * extensions - extensions  # the kept ones that may extend never extend themselves
        else:
            prompts[n] = kept * (extensions - (n - 2))
        kept = min(num_beams, prompts[n])
    return prompts
