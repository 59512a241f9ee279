"""`top_pn`: the best positives and the hardest negatives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from leverplus_balancers.sides import counts, shortage, sides
from leverplus_core import Balancer, Candidate


class TopPnBalancer(Balancer):
    """The top p correct candidates and the n hardest wrong ones: p + n a question where there are so many.

    Both are ranked by (accuracy, log-probability of the true answer, InfoScore), so that a hard negative is one that
    came close. Why these defaults: docs/design/003-balancers.md.
    """

    p: int = Field(6, ge=0, description="correct candidates kept, at most")
    n: int = Field(4, ge=0, description="wrong candidates kept, at most")
    min_pos: int = Field(1, ge=0, description="questions with fewer correct candidates are dropped")
    fill: bool = Field(True, description="make up what one side lacks from the other, up to p + n")
    drop: bool = Field(True, description="false keeps the questions under min_pos too: balance without dropping")

    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        right, wrong = sides(group)
        if self.drop and len(right) < self.min_pos:
            return []
        p, n = self.p, self.n
        if self.fill:
            p, n = max(p, p + n - len(wrong)), max(n, p + n - len(right))
        return right[:p] + wrong[:n]

    def shortfall(self, group: Sequence[Candidate], picked: Sequence[Candidate]) -> str:
        positives, negatives = counts(group)
        below = shortage("positive", positives, self.min_pos)
        if below:
            return f"{below}, {'kept' if picked else 'dropped'}"
        if self.fill and len(group) < self.p + self.n:
            return f"fewer than {self.p + self.n} candidates"
        short = [shortage("positive", positives, self.p), shortage("negative", negatives, self.n)]
        return " and ".join(filter(None, short)) + (", made up" if self.fill and any(short) else "")
