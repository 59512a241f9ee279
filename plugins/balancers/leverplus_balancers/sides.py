"""What the built-in balancers share: a question's two sides, correct and wrong, and what is said where one is short."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from leverplus_core import Candidate, rank_key


def sides(group: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Positives and negatives, each ranked by (accuracy, log-probability of the true answer, InfoScore).

    A negative that stands first is one that came close.
    """
    ranked = sorted(group, key=rank_key)
    return [c for c in ranked if c.correct], [c for c in ranked if not c.correct]


def draw(side: Sequence[Candidate], count: int, rng: np.random.Generator) -> list[Candidate]:
    """`count` of `side`, uniform without replacement, in its order; all of it where it has no more."""
    if count >= len(side):
        return list(side)
    return [side[i] for i in sorted(rng.choice(len(side), size=count, replace=False))]


def counts(group: Sequence[Candidate]) -> tuple[int, int]:
    """How many positives and negatives."""
    positives = sum(candidate.correct for candidate in group)
    return positives, len(group) - positives


def shortage(side: Literal["positive", "negative"], there: int, wanted: int) -> str:
    """'no positive', 'fewer than 6 positives', or '' where there are enough."""
    if there >= wanted:
        return ""
    return f"fewer than {wanted} {side}s" if there else f"no {side}"
