"""`ratio` and `query_ratio`: the share of positives in a band, by thinning out a question or by leaving it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from leverplus_balancers.sides import counts, draw, sides
from leverplus_core import Balancer, Candidate

ROUNDING = 1e-9  # 3 of 10 is in a band that begins at 0.3, whatever 0.1 * 3 rounds to


class _BandBalancer(Balancer):
    low: float
    high: float

    @model_validator(mode="after")
    def _band(self) -> _BandBalancer:
        if self.low > self.high:
            raise ValueError(f"low={self.low} must not be above high={self.high}")
        return self

    def _holds(self, positives: int, total: int) -> bool:
        return self.low * total - ROUNDING <= positives <= self.high * total + ROUNDING


class RatioBalancer(_BandBalancer):
    """As many candidates as keep the share of correct ones between low and high, the surplus side thinned by seed.

    A question that cannot reach the band (no correct candidate, no wrong one, too few for so narrow a band) stays as it
    is, or is dropped.
    """

    low: float = Field(0.3, ge=0, le=1, description="smallest share of correct candidates")
    high: float = Field(0.4, ge=0, le=1, description="largest share of correct candidates")
    otherwise: Literal["keep", "drop"] = Field("keep", description="what is done with a question that cannot reach it")

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        right, wrong = sides(group)
        sizes = self._sizes(len(right), len(wrong))
        if sizes is None:
            return list(group) if self.otherwise == "keep" else []
        return draw(right, sizes[0], rng) + draw(wrong, sizes[1], rng)

    def shortfall(self, group: Sequence[Candidate], picked: Sequence[Candidate]) -> str:
        positives, negatives = counts(group)
        if not group or self._sizes(positives, negatives) is not None:
            return ""
        why = "no positive" if not positives else "no negative" if not negatives else "too few to reach the band"
        return f"{why}, {'kept' if picked else 'dropped'}"

    def _sizes(self, positives: int, negatives: int) -> tuple[int, int] | None:
        """The largest numbers of positives and negatives whose share is in the band; None where there are none."""
        for total in range(positives + negatives, 0, -1):
            # The most positives that this total may have are enough to try: fewer would be a lower share.
            taken = min(positives, int(self.high * total + ROUNDING))
            if total - taken <= negatives and self._holds(taken, total):
                return taken, total - taken
        return None


class QueryRatioBalancer(_BandBalancer):
    """Questions whose share of correct candidates lies between low and high, whole; the others are dropped.

    The defaults leave out the questions that all candidates answer, or none: there is nothing to choose in them.
    """

    low: float = Field(0.05, ge=0, le=1, description="smallest share of correct candidates")
    high: float = Field(0.95, ge=0, le=1, description="largest share of correct candidates")

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        return list(group) if self._holds(counts(group)[0], len(group)) else []

    def shortfall(self, group: Sequence[Candidate], picked: Sequence[Candidate]) -> str:
        if picked or not group:
            return ""
        positives, negatives = counts(group)
        if not positives or not negatives:
            return f"no {'negative' if positives else 'positive'}, dropped"
        below = positives < self.low * len(group)
        return f"share of positives {f'below {self.low:g}' if below else f'above {self.high:g}'}, dropped"
