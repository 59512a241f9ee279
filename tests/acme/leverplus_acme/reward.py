"""A reward."""

from __future__ import annotations

from collections.abc import Sequence

from leverplus_core import Candidate, Reward


class GapReward(Reward):
    """Accuracy, and a fixed gap more when correct."""

    gap: float = 2.0

    def compute(self, group: Sequence[Candidate]) -> list[float]:
        return [c.accuracy + self.gap * c.correct for c in group]
