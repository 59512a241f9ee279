"""`ratio` and `query_ratio`: the share of positives within a band, by dropping candidates or whole questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from leverplus_balancers.correctness import counts, draw, split_by_correct
from leverplus_core import Balancer, Candidate, Measurement

ROUNDING = 1e-9
"""Tolerance of the bounds: 3 of 10 is in a band that begins at 0.3, whatever 0.1 * 3 rounds to."""


class _BandBalancer(Balancer):
    low: float
    high: float

    @model_validator(mode="after")
    def _band(self) -> _BandBalancer:
        if self.low > self.high:
            raise ValueError(f"low={self.low} must not be above high={self.high}")
        return self

    def needs(self) -> frozenset[Measurement]:
        """Nothing beside the accuracy: what is dropped is drawn."""
        return frozenset()

    def _holds(self, positives: int, total: int) -> bool:
        return self.low * total - ROUNDING <= positives <= self.high * total + ROUNDING


class RatioBalancer(_BandBalancer):
    """The most candidates whose share of correct ones is between low and high; the surplus is dropped at random.

    A question that cannot reach the band (no correct candidate, no incorrect one, too few for a narrow band) is kept
    unchanged or dropped.
    """

    low: float = Field(0.3, ge=0, le=1, description="smallest share of correct candidates")
    high: float = Field(0.4, ge=0, le=1, description="largest share of correct candidates")
    fallback: Literal["keep", "drop"] = Field(
        "keep", description="what to do with a question that cannot reach the band"
    )

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        """As many candidates as the band allows; the group unchanged, or nothing, when it cannot reach the band."""
        positives, negatives = split_by_correct(group)
        sizes = self._sizes(len(positives), len(negatives))
        if sizes is None:
            return list(group) if self.fallback == "keep" else []
        return draw(positives, sizes[0], rng) + draw(negatives, sizes[1], rng)

    def shortfall(self, group: Sequence[Candidate], selected: Sequence[Candidate]) -> str:
        """Why the group cannot reach the band."""
        positives, negatives = counts(group)
        if not group or self._sizes(positives, negatives) is not None:
            return ""
        why = "no positive" if not positives else "no negative" if not negatives else "too few to reach the band"
        return f"{why}, {'kept' if selected else 'dropped'}"

    def _sizes(self, positives: int, negatives: int) -> tuple[int, int] | None:
        """The largest numbers of positives and negatives whose share is in the band; None when no numbers are."""
        for total in range(positives + negatives, 0, -1):
            # Only the most positives that this total allows need a try: fewer would lower the share.
            taken = min(positives, int(self.high * total + ROUNDING))
            if total - taken <= negatives and self._holds(taken, total):
                return taken, total - taken
        return None


class QueryRatioBalancer(_BandBalancer):
    """Keeps whole questions whose share of correct candidates is between low and high; the others are dropped.

    The defaults drop the questions that all candidates answer correctly, or none: they offer no choice to learn from.
    """

    low: float = Field(0.05, ge=0, le=1, description="smallest share of correct candidates")
    high: float = Field(0.95, ge=0, le=1, description="largest share of correct candidates")

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        """The whole group when its share of correct candidates is in the band; `rng` is not used."""
        return list(group) if self._holds(counts(group)[0], len(group)) else []

    def shortfall(self, group: Sequence[Candidate], selected: Sequence[Candidate]) -> str:
        """Why the question was dropped."""
        if selected or not group:
            return ""
        positives, negatives = counts(group)
        if not positives or not negatives:
            return f"no {'negative' if positives else 'positive'}, dropped"
        below = positives < self.low * len(group)
        return f"share of positives {f'below {self.low:g}' if below else f'above {self.high:g}'}, dropped"
