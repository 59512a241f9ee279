"""`mixed`: the reward depends on how many of a question's candidates are correct."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from leverplus_core import Candidate, Measurement, Reward
from leverplus_rewards.weighted import Gap, Hard, HardPlusSoftReward, SeparatedReward, Soft


class MixedReward(Reward):
    """`separated` for questions with many correct candidates, `hard_plus_soft` for those with few: in [0, 3].

    For a question with a single, possibly accidental, correct candidate a wide gap would make that sequence the only
    thing to learn (Lever-Plus report, 2025).
    """

    many: int = Field(3, ge=1, description="smallest number of correct candidates that counts as many")
    gap: Gap = 2.0
    hard: Hard = 1.0
    soft: Soft = 1.0

    def compute(self, group: Sequence[Candidate]) -> list[float]:
        """One reward per candidate, in the order of `group`."""
        if sum(candidate.correct for candidate in group) >= self.many:
            return SeparatedReward(gap=self.gap, soft=self.soft).compute(group)
        return HardPlusSoftReward(hard=self.hard, soft=self.soft).compute(group)

    def needs(self) -> frozenset[Measurement]:
        """Nothing beside the accuracy."""
        return frozenset()
