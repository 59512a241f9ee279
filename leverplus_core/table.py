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

from leverplus_core.parts import Dataset, Floats, Split
from leverplus_core.selector import Batch


@dataclass(frozen=True)
class SelectorTable:
    """Feature rows by question id: query (Dq,) = [image; text], pool (K, Dc) = [image; text; answer]."""

    row: Mapping[str, int]
    pool_ids: Mapping[str, Sequence[str]]
    query: Tensor  # (Q, Di + Dt)
    bank: Tensor  # (M, Di + 2 Dt)
    pool_rows: Tensor  # (Q, K) rows of the bank
    image_width: int
    text_width: int

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        bank: tuple[Floats, Floats, Floats],
        questions: Mapping[Split, tuple[Floats, Floats]],
        pools: Mapping[str, Sequence[str]],
    ) -> SelectorTable:
        """From the bank's (image, text, answer) rows and each split's (image, text) rows; `pools` by question id."""
        at = {d.id: i for i, d in enumerate(dataset.demonstrations())}
        ids = [q.id for split in questions for q in dataset.questions(split)]
        query = np.concatenate([np.concatenate(rows, axis=1) for rows in questions.values()])
        pool_rows = np.array([[at[i] for i in pools[q]] for q in ids])
        return cls(
            row={q: i for i, q in enumerate(ids)},
            pool_ids=pools,
            query=torch.from_numpy(query),
            bank=torch.from_numpy(np.concatenate(bank, axis=1)),
            pool_rows=torch.from_numpy(pool_rows),
            image_width=bank[0].shape[1],
            text_width=bank[1].shape[1],
        )

    def similarity_of(self, question_id: str) -> np.ndarray:
        """(K, 2) cosines of image and of text between the question and its pool."""
        return self.batch([question_id]).similarity[0].numpy()

    def batch(self, question_ids: Sequence[str]) -> Batch:
        """The selector's input for these questions."""
        rows = torch.tensor([self.row[q] for q in question_ids], dtype=torch.long)
        query = self.query[rows]  # (B, Dq)
        candidates = self.bank[self.pool_rows[rows]]  # (B, K, Dc)
        di, dt = self.image_width, self.text_width
        image = (candidates[..., :di] * query[:, None, :di]).sum(-1)
        text = (candidates[..., di : di + dt] * query[:, None, di:]).sum(-1)
        return Batch(query, candidates, torch.stack([image, text], dim=-1))
