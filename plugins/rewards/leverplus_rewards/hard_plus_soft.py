"""`hard_plus_soft`: being correct and being accurate count alike."""

from __future__ import annotations

from collections.abc import Sequence

from leverplus_core import Candidate, Reward


class HardPlusSoftReward(Reward):
    """One when correct, plus the accuracy: in [0, 2]."""

    def of(self, group: Sequence[Candidate]) -> list[float]:
        return [c.correct + c.accuracy for c in group]
