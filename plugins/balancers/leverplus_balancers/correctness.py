"""Shared by the built-in balancers: positives and negatives of a group, and the phrase for too few of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from leverplus_core import Candidate, rank_key


def split_by_correct(group: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """(positives, negatives), each sorted by accuracy, log-probability of the true answer and InfoScore, highest first.

    The first negatives are the hardest: they were closest to being correct.
    """
    ranked = sorted(group, key=rank_key)
    return [c for c in ranked if c.correct], [c for c in ranked if not c.correct]


def draw(candidates: Sequence[Candidate], count: int, rng: np.random.Generator) -> list[Candidate]:
    """`count` of `candidates` in their order, uniform without replacement; all of them when there are no more."""
    if count >= len(candidates):
        return list(candidates)
    return [candidates[i] for i in sorted(rng.choice(len(candidates), size=count, replace=False))]


def counts(group: Sequence[Candidate]) -> tuple[int, int]:
    """The numbers of positives and negatives."""
    positives = sum(candidate.correct for candidate in group)
    return positives, len(group) - positives


def shortage(kind: Literal["positive", "negative"], count: int, wanted: int) -> str:
    """'no positive', 'fewer than 6 positives', or '' when `count` is at least `wanted`."""
    if count >= wanted:
        return ""
    return f"fewer than {wanted} {kind}s" if count else f"no {kind}"
