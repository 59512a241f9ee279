"""The network of `pointer`: a pointer network over a question's pool.

Pointer networks: Vinyals, Fortunato and Jaitly, NeurIPS 2015 (arXiv:1506.03134); additive scores: Bahdanau, Cho and
Bengio, ICLR 2015 (arXiv:1409.0473); bilinear ones: Luong, Pham and Manning, EMNLP 2015 (arXiv:1508.04025); maximal
marginal relevance: Carbonell and Goldstein, SIGIR 1998. Letters at line ends: B questions, K pool, C sequences, W
width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leverplus_core import (
    SIMILARITIES,
    Batch,
    Encoded,
    FeatureWidths,
    Policy,
    StopHead,
    gather_rows,
    normalize_per_pool,
)
from leverplus_selectors.pointer import PointerSelector


class Tower(nn.Module):
    """Two layers with GELU, then a norm; inputs are dropped too, as there are many features and few questions."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width), nn.LayerNorm(width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, K, W) of rows (B, K, D); a feature is dropped for a whole pool at once, which draws K times less."""
        if self.training:
            rows = rows * self.dropout(rows.new_ones(len(rows), 1, rows.shape[-1]))
        out: Tensor = self.layers(rows)
        return out


class CrossAttention(nn.Module):
    """The question attends to its pool, and each candidate to the question."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        # One question is one key, with an attention weight of always 1: the product says more than attention would.
        self.pair = nn.Sequential(nn.Linear(3 * width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width))
        self.query_norm = nn.LayerNorm(width)
        self.candidate_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, candidates: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, W) and (B, K, W) of a question (B, W) and its candidates (B, K, W), where `mask` (B, K)."""
        b, k, w = candidates.shape
        q = self.ask(query).view(b, self.heads, 1, -1)  # (B, H, 1, W/H)
        key, value = self.key_value(candidates).view(b, k, 2, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, K, W/H)
        seen = F.scaled_dot_product_attention(q, key, value, None if mask is None else mask[:, None, None])
        repeated = query[:, None].expand(b, k, w)
        both = torch.cat([candidates, repeated, candidates * repeated], dim=-1)  # (B, K, 3W)
        return (
            self.query_norm(query + self.dropout(self.out(seen.reshape(b, w)))),  # (B, W)
            self.candidate_norm(candidates + self.dropout(self.pair(both))),  # (B, K, W)
        )


class PointerPolicy(Policy):
    """Scores candidates step by step: similarity of state and candidate + prior, over those not yet chosen."""

    def __init__(self, selector: PointerSelector, widths: FeatureWidths) -> None:
        super().__init__(selector, widths, selector.stop)
        self.settings = selector
        w, dropout = selector.width, selector.dropout
        # A demonstration is a question with its answer, so both go through one tower: their similarity is learned
        # from every row of the pool, not from the questions alone.
        self.situation = Tower(sum(widths.question.values()), w, dropout)
        self.answered = Tower(sum(widths.candidate.values()), w, dropout)
        self.cross = nn.ModuleList(CrossAttention(w, selector.heads, dropout) for _ in range(selector.layers))
        self.look: nn.Linear | None = None
        if selector.score != "dot":
            self.look = nn.Linear(w, w, bias=False)
            # Question and candidates leave one tower, so that their similarity is a good first guess.
            nn.init.eye_(self.look.weight)
        self.additive = nn.Linear(w, 1, bias=False) if selector.score == "additive" else None
        self.step: nn.Module | None = None
        if selector.state != "none":
            self.step = nn.GRUCell(w, w) if selector.state == "gru" else nn.Linear(2 * w, w)
        self.weigh = nn.Linear(SIMILARITIES, 1, bias=False) if selector.similarity else None
        if self.weigh is not None:
            # From zero: starting as nearest-neighbor search is soon good, and keeps the towers from learning the rule.
            nn.init.zeros_(self.weigh.weight)
        if selector.stop:
            self.stop_head = StopHead(w, dropout)

    def encode(self, batch: Batch) -> Encoded:
        mask = batch.pool_mask
        question, shown = self.standardized(batch)
        query = self.situation(question.rows[:, None]).squeeze(1)  # (B, W)
        candidates = self.situation(shown.up_to("state")) + self.answered(shown.rows)  # (B, K, W)
        for layer in self.cross:
            query, candidates = layer(query, candidates, mask)
        prior = candidates.new_zeros(candidates.shape[:2])
        if self.weigh is not None:
            similarity = normalize_per_pool(batch.similarity, mask)
            prior = self.weigh(similarity).squeeze(-1) / self.settings.temperature  # (B, K)
        if mask is not None:
            prior = prior.masked_fill(~mask, -torch.inf)
        return Encoded(query, candidates, F.normalize(candidates, dim=-1), prior)

    def scores(self, encoded: Encoded, state: Tensor, chosen: Tensor) -> Tensor:
        if self.additive is not None:
            assert self.look is not None
            both = torch.tanh(self.look(state)[:, :, None] + encoded.inputs[:, None])  # (B, C, K, W)
            similarity = self.additive(both).squeeze(-1)  # (B, C, K)
        else:
            look = F.normalize(state if self.look is None else self.look(state), dim=-1)  # (B, C, W)
            similarity = look @ encoded.keys.transpose(1, 2) / self.settings.temperature  # (B, C, K) cosines
        if self.settings.diversity == "mmr":
            between = (encoded.keys @ encoded.keys.transpose(1, 2))[:, None]  # (B, 1, K, K)
            nearest = between.masked_fill(~chosen[:, :, None], -1.0).amax(-1)  # (B, C, K) to one already chosen
            weight = self.settings.mmr_weight
            similarity = (1 - weight) * similarity - weight * (nearest + 1) / self.settings.temperature
        total: Tensor = similarity + encoded.prior[:, None]
        return total.masked_fill(chosen, -torch.inf)

    def next_state(self, encoded: Encoded, state: Tensor, position: Tensor) -> Tensor:
        if self.step is None:
            return state
        picked = gather_rows(encoded.inputs, position)  # (B, C, W)
        if isinstance(self.step, nn.GRUCell):
            new: Tensor = self.step(picked.flatten(0, 1), state.flatten(0, 1))
            return new.view_as(state)
        gate = torch.sigmoid(self.step(torch.cat([state, picked], dim=-1)))
        return state + gate * (picked - state)

    def stop_logit(self, encoded: Encoded, state: Tensor, chosen: Tensor) -> Tensor:
        start = encoded.start[:, None]  # (B, 1, W) before any choice
        first = self.scores(encoded, start, torch.zeros_like(chosen[:, :1]))[:, 0]  # (B, K)
        logit: Tensor = self.stop_head(state, start.expand_as(state), first, chosen)
        return logit
