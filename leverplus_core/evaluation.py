"""The evaluation grid: method x shots x sample size, every method on the same rows.

Evaluation questions stand in one seeded order; the sample of size n is its first n rows, so that samples are nested
(100 in 200 in 400) and each question is answered once a method and shot count. The baselines are always there:
no demonstrations, random ones, the nearest by text and by image, and the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from leverplus_core.ablation import Ablation
from leverplus_core.candidates import nearest
from leverplus_core.records import Prediction, Question
from leverplus_core.scoring import Ids, OracleSettings, Scorer, oracle
from leverplus_core.seeding import rng

Method = Literal["zero_shot", "random", "text_knn", "image_knn", "sft", "rce", "grpo", "online", "adaptive", "oracle"]
METHODS: tuple[Method, ...] = get_args(Method)
LEARNED: tuple[Method, ...] = ("sft", "rce", "grpo", "online")
ADAPTIVE: Method = "adaptive"
"""The policy trained last, with as many demonstrations as it thinks enough; `shots` is then the most it may show."""


class EvaluationSettings(BaseModel):
    """The grid. `order: first` takes the questions as they stand, for parity with published first-N tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shots: tuple[int, ...] = Field((1, 2, 3, 4), min_length=1)
    sizes: tuple[int, ...] = Field((100, 200, 400, 800), min_length=1)
    methods: tuple[Method, ...] = METHODS
    order: Literal["seeded", "first"] = "seeded"
    beams: int = Field(5, ge=1, description="beams of the learned selectors")
    oracle: OracleSettings = OracleSettings()
    ablation: Ablation = Field("none", description="what demonstrations are shown without, at evaluation only")


@dataclass(frozen=True)
class Bench:
    """The rows that every method answers: questions in evaluation order, pools (train ids), and similarities (K,)."""

    questions: Sequence[Question]
    pools: Mapping[str, Sequence[str]]
    text_similarity: Mapping[str, np.ndarray]
    image_similarity: Mapping[str, np.ndarray]


Choice = Callable[[int], Sequence[Sequence[int]]]
"""Learned selection: shots -> positions in the pool for each question, in evaluation order."""


def evaluation_order(questions: Sequence[Question], settings: EvaluationSettings, seed: int) -> list[Question]:
    """The questions of the largest sample, in nested order; sizes beyond the data mean all of it."""
    largest = min(max(settings.sizes), len(questions))
    if settings.order == "first":
        return list(questions[:largest])
    order = rng(seed, "evaluation order").permutation(len(questions))
    return [questions[i] for i in order[:largest]]


def sample_sizes(settings: EvaluationSettings, available: int) -> list[int]:
    """The sizes that the data can fill, the whole of it among them when a larger one was asked for."""
    return sorted({min(size, available) for size in settings.sizes})


def choose(
    method: Method,
    shots: Sequence[int],
    bench: Bench,
    scorer: Scorer,
    settings: EvaluationSettings,
    seed: int,
    learned: Choice | None,
) -> dict[int, list[Ids]]:
    """For each number of shots, the demonstration ids that `method` shows each question."""
    if method == "zero_shot":
        return {0: [() for _ in bench.questions]}
    if method == "oracle":
        found = oracle(scorer, bench.questions, bench.pools, max(shots), settings.oracle)
        return {n: found[n] for n in shots}

    def positions(question: Question, n: int) -> Sequence[int]:
        if method == "random":
            # One permutation a question: the random sequence of two shots begins with that of one.
            return [
                int(i) for i in rng(seed, "random method", question.id).permutation(len(bench.pools[question.id]))[:n]
            ]
        similarity = bench.text_similarity if method == "text_knn" else bench.image_similarity
        return nearest(similarity[question.id], n, scorer.prompt.order)

    chosen: dict[int, list[Ids]] = {}
    for n in shots:
        rows = learned(n) if learned is not None else [positions(q, n) for q in bench.questions]
        chosen[n] = [tuple(bench.pools[q.id][p] for p in row) for q, row in zip(bench.questions, rows, strict=True)]
    return chosen


def answer(
    method: Method, shots: int, chosen: Sequence[Ids], bench: Bench, scorer: Scorer
) -> list[tuple[int, Prediction]]:
    """Ask the VLM each question with its demonstrations: (position in the evaluation order, prediction)."""
    rows = list(zip(bench.questions, chosen, strict=True))
    answers = scorer.answers(rows, f"evaluate {method}, {shots} shot{'' if shots == 1 else 's'}")
    return [
        (i, Prediction(method, shots, q.id, q.image.id, ids, raw, prediction, accuracy))
        for i, ((q, ids), (raw, prediction, accuracy)) in enumerate(zip(rows, answers, strict=True))
    ]
