"""`oracle`: a search with the true answers, a lower bound of the best selector."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from leverplus_core import (
    AnswerLogprob,
    BaselineSelector,
    Beams,
    BeamSettings,
    EvalSet,
    Ids,
    Measure,
    Question,
    ScoredSequence,
    SelectionCost,
    beam_search,
)
from leverplus_core import beam_search_cost as search_cost

ZERO = 1e-9
"""Stands for the accuracy 0, which has no logarithm."""


class _Accuracies:
    """In the place of log-probabilities log(accuracy), so that a search ranks by accuracy."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[AnswerLogprob]:
        found = self._measure.answers(rows, label)
        return [AnswerLogprob(math.log(max(accuracy, ZERO)), 1) for _, _, accuracy in found]

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[tuple[str, str, float]]:
        return self._measure.answers(rows, label)


class OracleSelector(BaselineSelector):
    """The most accurate of what a beam search with the true answers measured with at most so many demonstrations.

    The question without demonstrations counts, too. It knows the true answers, and measures few of all sequences: a
    lower bound of what the best selector could choose from the pool.
    """

    shows_fewer: ClassVar[bool] = True

    num_beams: Beams = Field(3, description="sequences kept and answered per number of shots")
    expand_top_k: int | None = Field(8, ge=1, description="extend only by the demonstrations that were best alone")
    by: Literal["info_score", "accuracy"] = Field(
        "info_score", description="what the search ranks by; accuracy needs no log-probabilities, and ties often"
    )
    exhaustive_one_shot: bool = Field(False, description="answer with every demonstration of the pool alone")

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        ranked = measure if self.by == "info_score" else _Accuracies(measure)
        kept = beam_search(ranked, eval_set.questions, eval_set.pools, self._search(shots))
        # (accuracy, InfoScore, demonstrations): ties go to the higher InfoScore, then to the fewer demonstrations.
        best: dict[str, tuple[float, float, Ids]] = {}
        chosen: dict[int, list[Ids]] = {}
        for n in range(max(shots) + 1):
            options = {q.id: self._options(n, kept[q.id], eval_set.pools[q.id]) for q in eval_set.questions}
            rows = [(q, ids) for q in eval_set.questions for _, ids in options[q.id]]
            accuracies = iter([accuracy for _, _, accuracy in measure.answers(rows, f"oracle, {n} shots")])
            for q in eval_set.questions:
                found = [(next(accuracies), score, ids) for score, ids in options[q.id]]
                fewer = [best[q.id]] if n else []
                best[q.id] = max([*fewer, *found], key=lambda option: option[:2])
            chosen[n] = [best[q.id][2] for q in eval_set.questions]
        return {n: chosen[n] for n in shots}

    def _options(
        self, shots: int, kept: Sequence[Sequence[ScoredSequence]], pool: Sequence[str]
    ) -> list[tuple[float, Ids]]:
        """(InfoScore, demonstrations) of what is answered with so many demonstrations, best first."""
        if shots == 0:
            return [(0.0, ())]
        options = [(k.score, k.demonstrations) for k in kept[shots - 1]]
        if shots == 1 and self.exhaustive_one_shot:
            known = {ids for _, ids in options}
            options += [(-math.inf, (d,)) for d in pool if (d,) not in known]
        return options

    def cost(self, shots: Sequence[int], pool: int) -> SelectionCost:
        # It answers what its search kept, and one of these is its choice.
        logprobs = search_cost(pool, self._search(shots))
        if self.by == "accuracy":
            return SelectionCost(logprobs, {}, pool)
        answers = {n: min(self.num_beams, logprobs[n]) for n in range(max(shots) + 1)}
        if self.exhaustive_one_shot:
            answers[1] = pool
        return SelectionCost(answers, logprobs, pool)

    def _search(self, shots: Sequence[int]) -> BeamSettings:
        return BeamSettings(num_beams=self.num_beams, shots=max(shots), expand_top_k=self.expand_top_k)
