"""The nearest demonstrations, in the order of choice that puts the nearest next to the question. No torch."""

from __future__ import annotations

import numpy as np

from leverplus_core.plugins.contracts import Floats
from leverplus_core.recipes.settings import Order

Positions = tuple[int, ...]
"""Positions in a pool, in the order of choice."""


def nearest(similarity: Floats, shots: int, order: Order = "append") -> Positions:
    """The `shots` most similar of a pool (K,), in the order that puts the nearest next to the question."""
    return tuple(beside_question([int(i) for i in np.argsort(-similarity, kind="stable")[:shots]], order))


def beside_question(ranked: list[int], order: Order) -> list[int]:
    """Positions, nearest first, in the order of choice: with `prepend`, the first choice is next to the question."""
    return ranked if order == "prepend" else ranked[::-1]
