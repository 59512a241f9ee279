"""`separated`: no wrong answer comes near a correct one."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from leverplus_core import Candidate, Reward


class SeparatedReward(Reward):
    """Accuracy, and a fixed gap more when correct: correct answers in [2, 3], wrong ones in [0, 1]."""

    gap: float = Field(2.0, ge=0, allow_inf_nan=False, description="what being correct adds")

    def of(self, group: Sequence[Candidate]) -> list[float]:
        return [c.accuracy + self.gap * c.correct for c in group]
