"""The rewards of the Lever-Plus report (2025) that are weighted sums of what was measured.

Each setting is the weight of one term of a candidate; a term of weight 0 is not read, and need not have been measured.
Weights are not negative, so that more of anything measured never lowers a reward. Ranges are those of the defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from leverplus_core import Candidate, Reward

TERMS: Mapping[str, Callable[[Reward, Candidate], float]] = {
    "hard": lambda _, c: float(c.correct),
    "gap": lambda _, c: float(c.correct),
    "soft": lambda _, c: c.accuracy,
    "prob": lambda reward, c: math.exp(reward.require(c, "logprob")),
    "rel": lambda reward, c: 0.0 if c.correct else reward.require(c, "text_similarity"),
    "gain": lambda reward, c: reward.require(c, "info_score"),
}
"""Setting -> its term: in [0, 1], but for `gain` in [-1, 1]. `prob` is the geometric mean over the answer's tokens."""


def _weight(description: str) -> object:
    return Field(ge=0, allow_inf_nan=False, description=description)


Hard = Annotated[float, _weight("what being correct adds")]
Gap = Annotated[float, _weight("what being correct adds; above 1, no wrong answer comes near a correct one")]
Soft = Annotated[float, _weight("weight of the accuracy")]
Prob = Annotated[float, _weight("weight of the true answer's probability")]
Rel = Annotated[float, _weight("weight of a wrong answer's text_similarity in text to a true one")]
Gain = Annotated[float, _weight("weight of the InfoScore")]


class WeightedReward(Reward):
    """The sum of TERMS, weighted by the settings of their names."""

    def compute(self, group: Sequence[Candidate]) -> list[float]:
        weights = {name: getattr(self, name) for name in type(self).model_fields}
        terms = [(weight, TERMS[name]) for name, weight in weights.items() if weight]
        return [sum((weight * term(self, candidate) for weight, term in terms), 0.0) for candidate in group]


class SeparatedReward(WeightedReward):
    """Accuracy, and a fixed gap more when correct: correct answers in [2, 3], wrong ones in [0, 1]."""

    gap: Gap = 2.0
    soft: Soft = 1.0


class HardPlusSoftReward(WeightedReward):
    """One when correct, plus the accuracy: in [0, 2], a correct answer never below a wrong one."""

    hard: Hard = 1.0
    soft: Soft = 1.0


class HardPlusSoftV2Reward(WeightedReward):
    """Two when correct, plus the accuracy: the values of `separated`, under another name of Lever-Plus."""

    hard: Hard = 2.0
    soft: Soft = 1.0


class HardOnlyReward(WeightedReward):
    """One when correct, nothing when wrong."""

    hard: Hard = 1.0


class SoftOnlyReward(WeightedReward):
    """The accuracy alone: in [0, 1]."""

    soft: Soft = 1.0


class HardPlusGtProbReward(WeightedReward):
    """One when correct, plus the true answer's probability: in [0, 2], a correct answer never below a wrong one."""

    hard: Hard = 1.0
    prob: Prob = 1.0


class SeparatedGtProbReward(WeightedReward):
    """The true answer's probability, and a fixed gap more when correct: correct answers in [2, 3], wrong in [0, 1]."""

    gap: Gap = 2.0
    prob: Prob = 1.0


class HardGtProbRelReward(WeightedReward):
    """Two when correct, plus the true answer's probability; a wrong answer gains a little by being near in text.

    Correct answers in [2, 3], wrong ones in [0, 1.1]. Nearness counts where the answer is wrong only: a correct one
    has nothing to gain from its spelling.
    """

    hard: Hard = 2.0
    prob: Prob = 1.0
    rel: Rel = 0.1


class InfoScoreReward(WeightedReward):
    """What the demonstrations added to the true answer's probability, whatever was answered: in [-1, 1]."""

    gain: Gain = 1.0
