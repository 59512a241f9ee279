"""`top_pn`: the best positives and the hardest negatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from leverplus_balancers.correctness import counts, shortage, split_by_correct
from leverplus_core import Balancer, Candidate, Measurement


class TopPnBalancer(Balancer):
    """The top p correct candidates and the n hardest incorrect ones: p + n per question when there are that many.

    Both are ranked by accuracy, log-probability of the true answer and InfoScore, so that a hard negative is one that
    was close to being correct. p=10, n=0 takes positives first, up to 10 candidates, then the hardest negatives up to
    10 in all, as the Lever-Plus report does. docs/design/003-balancers.md gives the reasons for the defaults.
    """

    p: int = Field(6, ge=0, description="largest number of correct candidates, before `fill`")
    n: int = Field(4, ge=0, description="largest number of incorrect candidates, before `fill`")
    min_pos: int = Field(1, ge=0, description="questions with fewer correct candidates are dropped")
    fill: bool = Field(
        True, description="when positives or negatives are too few, take more of the others, up to p + n"
    )
    drop: bool = Field(True, description="false also keeps the questions with fewer than min_pos")

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        """The candidates that rank first among positives and among negatives; `rng` is not used."""
        positives, negatives = split_by_correct(group)
        if self.drop and len(positives) < self.min_pos:
            return []
        p, n = self.p, self.n
        if self.fill:
            p, n = max(p, p + n - len(negatives)), max(n, p + n - len(positives))
        return positives[:p] + negatives[:n]

    def needs(self) -> frozenset[Measurement]:
        """The probability of the true answer, by which candidates of one accuracy rank."""
        return frozenset({"logprob"})

    def shortfall(self, group: Sequence[Candidate], selected: Sequence[Candidate]) -> str:
        """Which of `min_pos`, `p`, `n` and p + n the group could not meet."""
        positives, negatives = counts(group)
        below = shortage("positive", positives, self.min_pos)
        if below:
            return f"{below}, {'kept' if selected else 'dropped'}"
        if self.fill and len(group) < self.p + self.n:
            return f"fewer than {self.p + self.n} candidates"
        short = [shortage("positive", positives, self.p), shortage("negative", negatives, self.n)]
        return " and ".join(filter(None, short)) + (", made up" if self.fill and any(short) else "")
