"""The rewards of the Lever-Plus report (2025) that are weighted sums of measurements.

Each setting is the weight of one term. A term of weight 0 is not read and need not have been measured. Weights are not
negative, so that a higher measurement never lowers a reward. Ranges in docstrings are those of the default weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from leverplus_core import Candidate, Measurement, Reward, Weight

TERMS: Mapping[str, Callable[[Reward, Candidate], float]] = {
    "hard": lambda _, c: float(c.correct),
    "gap": lambda _, c: float(c.correct),
    "soft": lambda _, c: c.accuracy,
    "prob": lambda reward, c: math.exp(reward.require(c, "logprob")),
    "rel": lambda reward, c: 0.0 if c.correct else reward.require(c, "text_similarity"),
    "gain": lambda reward, c: reward.require(c, "info_score"),
}
"""Setting -> its term, in [0, 1] (`gain` in [-1, 1]). `prob` is the geometric mean over the answer's tokens."""
READS: Mapping[str, Measurement] = {"prob": "logprob", "rel": "text_similarity", "gain": "info_score"}
"""Setting -> the measurement that its term reads beside the accuracy."""


Hard = Annotated[Weight, Field(description="added to a correct answer")]
Gap = Annotated[
    Weight, Field(description="added to a correct answer; above 1 it separates correct from incorrect answers")
]
Soft = Annotated[Weight, Field(description="weight of the accuracy")]
Prob = Annotated[Weight, Field(description="weight of the true answer's probability")]
Rel = Annotated[Weight, Field(description="weight of an incorrect answer's text similarity to a true answer")]
Gain = Annotated[Weight, Field(description="weight of the InfoScore")]


class WeightedReward(Reward):
    """The sum of TERMS, each weighted by the setting of its name."""

    def compute(self, group: Sequence[Candidate]) -> list[float]:
        """One reward per candidate, in order. Raises DataError when a term of weight above 0 was not measured."""
        terms = [(weight, TERMS[name]) for name, weight in self._weights().items()]
        return [sum((weight * term(self, candidate) for weight, term in terms), 0.0) for candidate in group]

    def needs(self) -> frozenset[Measurement]:
        """The measurements of the terms whose weight is above 0."""
        return frozenset(READS[name] for name in self._weights() if name in READS)

    def _weights(self) -> dict[str, float]:
        given = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: weight for name, weight in given.items() if weight}


class SeparatedReward(WeightedReward):
    """Accuracy, plus a fixed gap when correct: correct answers in [2, 3], incorrect ones in [0, 1]."""

    gap: Gap = 2.0
    soft: Soft = 1.0


class HardPlusSoftReward(WeightedReward):
    """One when correct, plus the accuracy: in [0, 2], a correct answer never below an incorrect one."""

    hard: Hard = 1.0
    soft: Soft = 1.0


class HardPlusSoftV2Reward(WeightedReward):
    """Two when correct, plus the accuracy: the values of `separated`, under another Lever-Plus name."""

    hard: Hard = 2.0
    soft: Soft = 1.0


class HardOnlyReward(WeightedReward):
    """One when correct, zero when incorrect."""

    hard: Hard = 1.0


class SoftOnlyReward(WeightedReward):
    """The accuracy alone: in [0, 1]."""

    soft: Soft = 1.0


class HardPlusGtProbReward(WeightedReward):
    """One when correct, plus the true answer's probability: in [0, 2], correct answers never below incorrect ones."""

    hard: Hard = 1.0
    prob: Prob = 1.0


class SeparatedGtProbReward(WeightedReward):
    """The true answer's probability, plus a fixed gap when correct: correct in [2, 3], incorrect in [0, 1]."""

    gap: Gap = 2.0
    prob: Prob = 1.0


class HardGtProbRelReward(WeightedReward):
    """Two when correct, plus the true answer's probability, plus a little for an incorrect answer of similar text.

    Correct answers in [2, 3], incorrect ones in [0, 1.1]. Text similarity counts only for incorrect answers: a correct
    answer gains nothing from its spelling.
    """

    hard: Hard = 2.0
    prob: Prob = 1.0
    rel: Rel = 0.1


class InfoScoreReward(WeightedReward):
    """The gain of the true answer's probability over no demonstrations (InfoScore): in [-1, 1]."""

    gain: Gain = 1.0
