"""`keep_all`: no balancing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from leverplus_balancers.correctness import counts, shortage
from leverplus_core import Balancer, Candidate, Measurement


class KeepAllBalancer(Balancer):
    """Keeps every candidate; min_pos=1 drops the questions that have no correct one."""

    min_pos: int = Field(0, ge=0, description="questions with fewer correct candidates are dropped")

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        """The whole group, or nothing when it has fewer than `min_pos` correct candidates."""
        return list(group) if counts(group)[0] >= self.min_pos else []

    def needs(self) -> frozenset[Measurement]:
        """Nothing beside the accuracy."""
        return frozenset()

    def shortfall(self, group: Sequence[Candidate], selected: Sequence[Candidate]) -> str:
        """Why the question was dropped."""
        short = shortage("positive", counts(group)[0], self.min_pos)
        return f"{short}, dropped" if short else ""
