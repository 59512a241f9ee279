"""What the selector sees of each question: its features, those of its pool, and how near they are.

Rows are gathered a batch at a time from one bank of features, so that N questions with pools of K do not cost
N x K rows of memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from leverplus_core.errors import DataError
from leverplus_core.plugins.contracts import Features, Floats
from leverplus_core.selector.policy import Batch


@dataclass(frozen=True)
class SelectorFeatures:
    """Feature rows by question id: query (Dq,) = [image; text; state], pool (K, Dc) = [image; text; state; answer].

    The model's states are there where the encoder's `states` asks for them.
    """

    row: Mapping[str, int]
    pool_ids: Mapping[str, Sequence[str]]
    query: Tensor  # (Q, Di + Dt + Ds)
    bank: Tensor  # (M, Di + 2 Dt + Ds)
    pool_rows: Tensor  # (Q, K) rows of the bank; 0 where a shorter pool is padded
    pool_mask: Tensor | None  # (Q, K) False there; None where all pools are of one size
    image_width: int
    text_width: int
    state_width: int = 0

    @classmethod
    def of(
        cls,
        bank_ids: Sequence[str],
        bank: Features,
        questions: Mapping[str, Sequence[Floats]],
        pools: Mapping[str, Sequence[str]],
    ) -> SelectorFeatures:
        """From the bank's rows, aligned with `bank_ids`, and each question's: image (Di,), text (Dt,) and, where the
        bank has states, state (Ds,).

        Questions without a pool, or with an empty one, are left out. Raises DataError where that leaves none, and for a
        pool with a demonstration that the bank lacks.
        """
        assert bank.answer is not None
        at = {d: i for i, d in enumerate(bank_ids)}
        ids = [q for q in questions if pools.get(q)]
        if not ids:
            raise DataError("no question has a pool.", "Pools and questions are from different data.")
        if lacking := next(((q, d) for q in ids for d in pools[q] if d not in at), None):
            raise DataError(
                f"question {lacking[0]}: demonstration {lacking[1]} of its pool has no features.",
                "Pools and features are from different data.",
            )
        sizes = torch.tensor([len(pools[q]) for q in ids])
        places = torch.arange(int(sizes.max()))
        mask = places < sizes[:, None]  # (Q, K)
        pool_rows = torch.zeros(mask.shape, dtype=torch.long)
        pool_rows[mask] = torch.tensor([at[d] for q in ids for d in pools[q]])
        query = [np.concatenate(questions[q]) for q in ids]
        states = [] if bank.state is None else [bank.state]
        return cls(
            row={q: i for i, q in enumerate(ids)},
            pool_ids=pools,
            query=torch.from_numpy(np.stack(query)),
            bank=torch.from_numpy(np.concatenate([bank.image, bank.text, *states, bank.answer], axis=1)),
            pool_rows=pool_rows,
            pool_mask=None if mask.all() else mask,
            image_width=bank.image.shape[1],
            text_width=bank.text.shape[1],
            state_width=0 if bank.state is None else bank.state.shape[1],
        )

    def similarity_of(self, question_id: str) -> np.ndarray:
        """(K, 2) cosines of image and of text between the question and its pool."""
        return self.batch([question_id]).similarity[0, : len(self.pool_ids[question_id])].numpy()

    def batch(self, question_ids: Sequence[str]) -> Batch:
        """The selector's input for these questions."""
        rows = torch.tensor([self.row[q] for q in question_ids], dtype=torch.long)
        query = self.query[rows]  # (B, Dq)
        candidates = self.bank[self.pool_rows[rows]]  # (B, K, Dc)
        di, dt = self.image_width, self.text_width
        image = (candidates[..., :di] * query[:, None, :di]).sum(-1)
        text = (candidates[..., di : di + dt] * query[:, None, di : di + dt]).sum(-1)
        mask = None if self.pool_mask is None else self.pool_mask[rows]
        return Batch(query, candidates, torch.stack([image, text], dim=-1), mask, self.state_width)
