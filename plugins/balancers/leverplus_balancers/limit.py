"""`limit`: no side of a question larger than so many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from leverplus_balancers.sides import draw, sides
from leverplus_core import Balancer, Candidate


class LimitBalancer(Balancer):
    """At most 4 correct candidates and 6 wrong ones, drawn by seed or best first; every question stays."""

    max_pos: int | None = Field(4, ge=0, description="correct candidates kept, at most; null for all")
    max_neg: int | None = Field(6, ge=0, description="wrong candidates kept, at most; null for all")
    order: Literal["random", "best"] = Field("random", description="who stays: drawn by seed, or those that rank first")

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        kept: list[Candidate] = []
        for side, most in zip(sides(group), (self.max_pos, self.max_neg), strict=True):
            count = len(side) if most is None else most
            kept += draw(side, count, rng) if self.order == "random" else side[:count]
        return kept

    def shortfall(self, group: Sequence[Candidate], picked: Sequence[Candidate]) -> str:
        return "" if picked else "none within the limits, dropped"
