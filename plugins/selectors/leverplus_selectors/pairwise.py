"""`pairwise`: each demonstration is scored by how alike it and the question are, whatever else is chosen.

A small network over the cosines of `leverplus_core.policy.likenesses`: nearest-neighbour retrieval (KATE: Liu et al.
2022, arXiv:2101.06804) whose measure of text_similarity is learned from the model's feedback (cf. EPR: Rubin et al., NAACL
2022, arXiv:2112.08633). With few questions it keeps what towers over whole feature rows would learn by heart. Letters
at line ends: B questions, K pool, C sequences.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from leverplus_core.selector.policy import (
    COSINE_FEATURES,
    Batch,
    Encoded,
    Policy,
    Selector,
    cosine_features,
    normalize_per_pool,
)

SCALE = 5.0
"""Cosines of sentences lie within some tenths: brought to the size of standardised ones."""


class PairwiseSelector(Selector):
    """A learned measure of text_similarity: the most alike are chosen, best first; small, and good with few questions."""

    width: int = Field(128, ge=1)
    dropout: float = Field(0.4, ge=0, lt=1)

    def policy(self, query_width: int, candidate_width: int) -> PairwisePolicy:
        return PairwisePolicy(self, query_width, candidate_width)


class PairwisePolicy(Policy):
    """One score a candidate, from its likenesses as they are and as they stand out in the pool."""

    def __init__(self, selector: PairwiseSelector, query_width: int, candidate_width: int) -> None:
        super().__init__(selector, query_width, candidate_width)
        w, drop = selector.width, selector.dropout
        self.score = nn.Sequential(
            nn.Linear(2 * COSINE_FEATURES, w), nn.GELU(), nn.Dropout(drop),
            nn.Linear(w, w), nn.GELU(), nn.Dropout(drop), nn.Linear(w, 1),
        )  # fmt: skip

    def encode(self, batch: Batch) -> Encoded:
        self.check_widths(batch)
        mask = batch.pool_mask
        alike = cosine_features(batch)  # (B, K, L)
        both = torch.cat([normalize_per_pool(alike, mask), SCALE * alike], dim=-1)
        prior = self.score(both).squeeze(-1)  # (B, K)
        if mask is not None:
            prior = prior.masked_fill(~mask, -torch.inf)
        nothing = prior.new_zeros(*prior.shape, 1)  # what was chosen changes nothing
        return Encoded(nothing[:, 0], nothing, nothing, prior)

    def scores(self, encoded: Encoded, state: Tensor, chosen: Tensor) -> Tensor:
        return encoded.prior[:, None].expand_as(chosen).masked_fill(chosen, -torch.inf)

    def next_state(self, encoded: Encoded, state: Tensor, position: Tensor) -> Tensor:
        return state
