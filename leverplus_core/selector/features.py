"""What a selector sees of each question: its features, those of its pool, and how similar they are.

Rows are gathered a batch at a time from one bank of features, so that N questions with pools of K do not cost
N x K rows of memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from leverplus_core.errors import DataError
from leverplus_core.plugins.contracts import Floats
from leverplus_core.selector.base import FeatureWidths
from leverplus_core.selector.feature_set import FeatureSet
from leverplus_core.selector.policy import Batch, Blocks


@dataclass(frozen=True)
class SelectorFeatures:
    """What a selector sees of each question with a pool, gathered a batch at a time from the rows of `FeatureSet`."""

    row: Mapping[str, int]
    pool_ids: Mapping[str, Sequence[str]]
    questions: Blocks  # (Q, Dq)
    bank: Blocks  # (M, Dc)
    pool_rows: Tensor  # (Q, K) rows of the bank; 0 where a shorter pool is padded
    pool_mask: Tensor | None  # (Q, K) False there; None where all pools are of one size
    widths: FeatureWidths

    @classmethod
    def of(cls, features: FeatureSet, pools: Mapping[str, Sequence[str]]) -> SelectorFeatures:
        """From features and each question's pool, by demonstration ids.

        Questions without a pool, or with an empty one, are left out. Raises DataError where that leaves none, and for a
        pool with a demonstration that has no features.
        """
        bank = features.demonstrations
        assert bank.answer is not None
        at = {d: i for i, d in enumerate(features.demonstration_ids)}
        kept = [i for i, q in enumerate(features.question_ids) if pools.get(q)]
        ids = [features.question_ids[i] for i in kept]
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
        questions = features.questions
        states = [] if bank.state is None or questions.state is None else [(questions.state, bank.state)]
        question = [questions.image, questions.text, *(ours for ours, _ in states)]
        shown = [bank.image, bank.text, *(theirs for _, theirs in states), bank.answer]
        width = states[0][1].shape[1] if states else 0
        widths = FeatureWidths(bank.image.shape[1], bank.text.shape[1], width, bank.answer.shape[1])
        return cls(
            row={q: i for i, q in enumerate(ids)},
            pool_ids=pools,
            questions=Blocks(torch.from_numpy(np.concatenate([b[kept] for b in question], axis=1)), widths.question),
            bank=Blocks(torch.from_numpy(np.concatenate(shown, axis=1)), widths.candidate),
            pool_rows=pool_rows,
            pool_mask=None if mask.all() else mask,
            widths=widths,
        )

    def similarity(self, block: str, question_id: str) -> Floats:
        """(K,) cosines of a block between the question and each demonstration of its pool."""
        row = self.row[question_id]
        rows = self.pool_rows[row, : len(self.pool_ids[question_id])]
        cosines = (self.bank.at(rows)[block] * self.questions.at(slice(row, row + 1))[block]).sum(-1)
        return np.asarray(cosines.numpy())

    @property
    def device(self) -> torch.device:
        """Where the features are, and batches are gathered."""
        return self.bank.rows.device

    def to(self, device: torch.device) -> SelectorFeatures:
        """The same features on `device`: all are moved at once, so that gathering a batch moves nothing."""
        if device == self.device:
            return self
        return replace(
            self,
            questions=Blocks(self.questions.rows.to(device), self.questions.widths),
            bank=Blocks(self.bank.rows.to(device), self.bank.widths),
            pool_rows=self.pool_rows.to(device),
            pool_mask=None if self.pool_mask is None else self.pool_mask.to(device),
        )

    def rows_of(self, question_ids: Sequence[str]) -> Tensor:
        """(B,) the rows of these questions, on the device of the features."""
        return torch.tensor([self.row[q] for q in question_ids], dtype=torch.long, device=self.device)

    def batch(self, question_ids: Sequence[str]) -> Batch:
        """The selector's input for these questions."""
        return self.gather(self.rows_of(question_ids))

    def gather(self, rows: Tensor) -> Batch:
        """The selector's input for the questions in these rows (B,)."""
        question = self.questions.at(rows)  # (B, Dq)
        candidates = self.bank.at(self.pool_rows[rows])  # (B, K, Dc)
        cosines = [(candidates[b] * question[b][:, None]).sum(-1) for b in ("image", "text")]
        mask = None if self.pool_mask is None else self.pool_mask[rows]
        return Batch(question, candidates, torch.stack(cosines, dim=-1), mask)
