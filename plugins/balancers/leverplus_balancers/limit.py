"""`limit`: at most a fixed number of positives and of negatives per question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from leverplus_balancers.correctness import draw, split_by_correct
from leverplus_core import Balancer, Candidate, Measurement


class LimitBalancer(Balancer):
    """At most 4 correct and 6 incorrect candidates, drawn at random or ranked first; no question is dropped."""

    max_pos: int | None = Field(4, ge=0, description="largest number of correct candidates; null for all")
    max_neg: int | None = Field(6, ge=0, description="largest number of incorrect candidates; null for all")
    order: Literal["random", "best"] = Field(
        "random", description="which ones are kept: drawn by seed, or those that rank first"
    )

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        """At most `max_pos` correct and `max_neg` incorrect candidates."""
        kept: list[Candidate] = []
        for candidates, limit in zip(split_by_correct(group), (self.max_pos, self.max_neg), strict=True):
            count = len(candidates) if limit is None else limit
            kept += draw(candidates, count, rng) if self.order == "random" else candidates[:count]
        return kept

    def needs(self) -> frozenset[Measurement]:
        """The probability of the true answer where the best are kept; nothing where they are drawn."""
        return frozenset({"logprob"}) if self.order == "best" else frozenset()

    def shortfall(self, group: Sequence[Candidate], selected: Sequence[Candidate]) -> str:
        """That nothing of the group is within the limits, which drops the question."""
        return "" if selected else "none within the limits, dropped"
