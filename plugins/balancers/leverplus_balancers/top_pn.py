"""`top_pn`: the best positives and the hardest negatives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from leverplus_core import Balancer, Candidate


class TopPnBalancer(Balancer):
    """The top p correct candidates and the n hardest wrong ones; a question with too few correct is dropped.

    Both are ranked by (accuracy, log-probability of the true answer, InfoScore), so that a hard negative is one that
    came close. Accuracy alone does not rank them: nearly all wrong candidates have accuracy 0.
    """

    p: int = Field(8, ge=0, description="correct candidates kept, at most")
    n: int = Field(4, ge=0, description="wrong candidates kept, at most")
    min_pos: int = Field(1, ge=0, description="questions with fewer correct candidates are dropped")

    def pick(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        positives = [candidate for candidate in group if candidate.correct]
        if len(positives) < self.min_pos:
            return []
        negatives = [candidate for candidate in group if not candidate.correct]
        return sorted(positives, key=_best_first)[: self.p] + sorted(negatives, key=_best_first)[: self.n]


def _best_first(candidate: Candidate) -> tuple[float, float, float, tuple[str, ...]]:
    """Sort key; what was not measured stands last, and the demonstrations' ids settle ties."""
    logprob, info_score = (math.inf if v is None else -v for v in (candidate.logprob, candidate.info_score))
    return -candidate.accuracy, logprob, info_score, candidate.demonstrations
