"""The network of `pairwise`: each demonstration is scored by its similarity to the question, whatever else is chosen.

A small network over the cosines of `leverplus_core.cosine_features`: nearest-neighbor retrieval (KATE: Liu et al. 2022,
arXiv:2101.06804) whose similarity is learned from the model's feedback (cf. EPR: Rubin et al., NAACL 2022,
arXiv:2112.08633). With few questions it generalizes where towers over whole feature rows memorize. Letters at line
ends: B questions, K pool, C sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leverplus_core import COSINES, Batch, Encoded, FeatureWidths, Policy, cosine_features, normalize_per_pool
from leverplus_selectors.pairwise import PairwiseSelector

SCALE = 5.0
"""Cosines of sentences lie within some tenths: brought to the scale of standardized ones."""


class PairwisePolicy(Policy):
    """One score per candidate, from its cosines as they are and normalized per pool."""

    def __init__(self, selector: PairwiseSelector, widths: FeatureWidths) -> None:
        super().__init__(selector, widths)
        w, drop = selector.width, selector.dropout
        self.score = nn.Sequential(
            nn.Linear(2 * len(COSINES), w), nn.GELU(), nn.Dropout(drop),
            nn.Linear(w, w), nn.GELU(), nn.Dropout(drop), nn.Linear(w, 1),
        )  # fmt: skip

    def encode(self, batch: Batch) -> Encoded:
        self.check_widths(batch)
        mask = batch.pool_mask
        cosines = cosine_features(batch)  # (B, K, P)
        both = torch.cat([normalize_per_pool(cosines, mask), SCALE * cosines], dim=-1)
        prior = self.score(both).squeeze(-1)  # (B, K)
        if mask is not None:
            prior = prior.masked_fill(~mask, -torch.inf)
        nothing = prior.new_zeros(*prior.shape, 1)  # what was chosen changes nothing
        return Encoded(nothing[:, 0], nothing, nothing, prior)

    def scores(self, encoded: Encoded, state: Tensor, chosen: Tensor) -> Tensor:
        return encoded.prior[:, None].expand_as(chosen).masked_fill(chosen, -torch.inf)

    def next_state(self, encoded: Encoded, state: Tensor, position: Tensor) -> Tensor:
        return state
