"""`bank_knn`: the nearest demonstrations of the whole bank, not of the question's pool alone.

Liu et al. 2022, arXiv:2101.06804, retrieve from the whole train set; `text_image` as in `knn`, over the bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from leverplus_core import BaselineSelector, EvalSet, Features, Floats, Ids, Measure, SelectionCost, summed
from leverplus_selectors.bank import bank_cost, rank_bank
from leverplus_selectors.knn import no_states

SLAB = 2**14
"""Rows of the bank that are multiplied at once."""


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
        pairs = [
            (_block(eval_set.features, block), _block(eval_set.bank.features, block)) for block in self.read[self.by]
        ]
        return rank_bank(eval_set, shots, lambda part: summed([cosines(rows[part], bank) for rows, bank in pairs]))

    def cost(self, shots: Sequence[int], pool: int) -> SelectionCost:
        return bank_cost(shots)


def _block(features: Features, block: str) -> Floats:
    rows: Floats | None = getattr(features, block)
    if rows is None:
        raise no_states("bank_knn")
    return rows


def cosines(questions: Floats, bank: Floats) -> NDArray[np.float64]:
    """(B, M) cosines of unit rows (B, D) and (M, D), to six places.

    Summed in double precision: equal rows of the bank tie exactly, and a cosine does not depend on the batch, which the
    last bits of a product in single precision do.
    """
    rows = questions.astype(np.float64)
    parts = [rows @ bank[start : start + SLAB].astype(np.float64).T for start in range(0, len(bank), SLAB)]
    products: NDArray[np.float64] = np.concatenate(parts, axis=1)
    return products.round(6)
