"""`keep_all`: no balancing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from leverplus_balancers.sides import counts, shortage
from leverplus_core import Balancer, Candidate


class KeepAllBalancer(Balancer):
    """Every candidate teaches; min_pos=1 drops the questions that have no correct one."""

    min_pos: int = Field(0, ge=0, description="questions with fewer correct candidates are dropped")

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        return list(group) if counts(group)[0] >= self.min_pos else []

    def shortfall(self, group: Sequence[Candidate], picked: Sequence[Candidate]) -> str:
        short = shortage("positive", counts(group)[0], self.min_pos)
        return f"{short}, dropped" if short else ""
