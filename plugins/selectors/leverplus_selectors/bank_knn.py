"""`bank_knn`: the nearest demonstrations of the whole bank, not of the question's pool alone.

Liu et al. 2022, arXiv:2101.06804, retrieve from the whole train set; `text_image` as in `knn`, over the bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from leverplus_core import Bank, BaselineSelector, EvalSet, Features, Floats, Ids, Measure, SelectionCost, nearest_rows
from leverplus_selectors.bank import bank_cost, choose, hidden_rows
from leverplus_selectors.knn import no_states

PLACES = 6
"""Cosines count to so many places: what differs by less is a tie, and goes to the first."""


class BankKnnSelector(BaselineSelector):
    """The nearest demonstrations of the whole bank, the nearest next to the question."""

    by: Literal["text", "image", "text_image", "state"] = Field(
        "text_image", description="what is compared; text_image: the sum of both similarities' z-scores over the bank"
    )

    read: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": ("text",), "image": ("image",), "text_image": ("text", "image"), "state": ("state",),
    }  # fmt: skip

    def blocks(self) -> frozenset[str]:
        return frozenset(self.read[self.by])

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        names, bank = self.read[self.by], eval_set.bank
        blocks = [(_block(eval_set.features, name), _block(bank.features, name)) for name in names]
        scales = [self._scale(bank, name, rows) for name, (rows, _) in zip(names, blocks, strict=True)]
        hidden = hidden_rows(eval_set, shots)
        near = nearest_rows(blocks, hidden, max(shots), scales if len(blocks) > 1 else None, PLACES)
        return choose(eval_set, shots, near)

    @staticmethod
    def _scale(bank: Bank, block: str, rows: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(B,) mean and (B,) deviation of each question's cosines with the whole bank."""
        total = len(bank.demonstrations)
        sums, squares = bank.spread(block, rows)
        mean = sums / total
        return mean, np.maximum(np.sqrt(np.maximum(squares / total - mean**2, 0)), 1e-6)

    def cost(self, shots: Sequence[int], pool: int) -> SelectionCost:
        return bank_cost(shots)


def _block(features: Features, block: str) -> Floats:
    rows: Floats | None = getattr(features, block)
    if rows is None:
        raise no_states("bank_knn")
    return rows
