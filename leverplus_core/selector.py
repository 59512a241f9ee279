"""The pointer selector: from a question and its pool to an ordered sequence of demonstrations.

Pointer networks: Vinyals, Fortunato and Jaitly, NeurIPS 2015 (arXiv:1506.03134); choosing demonstrations one by one
with a small learned model: Lever-LM, Yang et al., NeurIPS 2024 (arXiv:2312.10104). Letters at line ends: B questions,
K pool, C sequences a question, T steps, W width, S similarities. Nothing here knows a candidate's place in the pool,
so that shuffling the pool shuffles the answer and no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from leverplus_core.errors import DataError

SIMILARITIES = 2  # image, text


class SelectorSettings(BaseModel):
    """The architecture. Defaults were tuned on the matching task of `tests/core/test_selector.py`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(128, ge=1)
    layers: int = Field(1, ge=1, le=3, description="cross-attention layers between question and pool")
    heads: int = Field(4, ge=1)
    state: Literal["none", "gate", "gru"] = Field("gru", description="how a choice changes what is looked for next")
    temperature: float = Field(0.1, gt=0, description="of the cosine scores")
    dropout: float = Field(0.2, ge=0, lt=1)
    similarity: bool = Field(True, description="add a learned weight on the image and text similarities to the score")

    @model_validator(mode="after")
    def _heads_divide(self) -> SelectorSettings:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


@dataclass(frozen=True)
class Batch:
    """Questions with their pools.

    `query` [image; question], `candidates` [image; question; answer], `similarity` cosines of image and of text between
    the question and each candidate; `pool_mask` is False where a shorter pool is padded (None: all pools are full).
    """

    query: Tensor  # (B, Dq)
    candidates: Tensor  # (B, K, Dc)
    similarity: Tensor  # (B, K, S)
    pool_mask: Tensor | None = None  # (B, K) bool

    def rows(self, start: int, stop: int) -> Batch:
        """Questions `start` to `stop`."""
        mask = None if self.pool_mask is None else self.pool_mask[start:stop]
        return Batch(self.query[start:stop], self.candidates[start:stop], self.similarity[start:stop], mask)


@dataclass(frozen=True)
class Encoded:
    """What decoding needs of a batch, computed once for all its sequences."""

    start: Tensor  # (B, W) the first state
    inputs: Tensor  # (B, K, W) what a chosen candidate tells the state
    keys: Tensor  # (B, K, W) unit rows
    prior: Tensor  # (B, K) added to every step's scores; -inf where the pool is padded


class Tower(nn.Module):
    """Two layers with GELU, then a norm; inputs are dropped too, as features are many and questions few."""

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
    """The question looks at its pool, and each candidate at the question."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.ask = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        # One question is one key, where attention weights are always 1: the product says more than attention would.
        self.pair = nn.Sequential(nn.Linear(3 * width, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width))
        self.query_norm = nn.LayerNorm(width)
        self.candidate_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, candidates: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        b, k, w = candidates.shape
        q = self.ask(query).view(b, self.heads, 1, -1)  # (B, H, 1, W/H)
        key, value = self.key_value(candidates).view(b, k, 2, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, K, W/H)
        seen = F.scaled_dot_product_attention(q, key, value, None if mask is None else mask[:, None, None])
        asker = query[:, None].expand(b, k, w)
        both = torch.cat([candidates, asker, candidates * asker], dim=-1)  # (B, K, 3W)
        return (
            self.query_norm(query + self.dropout(self.out(seen.reshape(b, w)))),  # (B, W)
            self.candidate_norm(candidates + self.dropout(self.pair(both))),  # (B, K, W)
        )


class Selector(nn.Module):
    """Scores candidates step by step: cosine(state, candidate) / temperature + prior, over those not yet chosen."""

    def __init__(self, settings: SelectorSettings, query_width: int, candidate_width: int) -> None:
        super().__init__()
        if query_width > candidate_width:
            raise DataError(
                f"selector: query rows have {query_width} columns, candidate rows {candidate_width}.",
                "A candidate row is [image; question; answer], a query row its first two.",
            )
        self.settings, self.query_width, self.candidate_width = settings, query_width, candidate_width
        w, dropout = settings.width, settings.dropout
        # A demonstration is a question with its answer, so both go through one tower: what makes two of them alike is
        # learned from every row of the pool, not from the questions alone.
        self.situation = Tower(query_width, w, dropout)
        self.answered = Tower(candidate_width, w, dropout)
        self.cross = nn.ModuleList(CrossAttention(w, settings.heads, dropout) for _ in range(settings.layers))
        self.look = nn.Linear(w, w, bias=False)
        # Question and candidates leave one tower, so that likeness is a good first guess of what to look for.
        nn.init.eye_(self.look.weight)
        self.step: nn.Module | None = None
        if settings.state != "none":
            self.step = nn.GRUCell(w, w) if settings.state == "gru" else nn.Linear(2 * w, w)
        self.weigh = nn.Linear(SIMILARITIES, 1, bias=False) if settings.similarity else None
        if self.weigh is not None:
            # From zero: a start as nearest-neighbour search is soon good, and keeps the towers from learning the rule.
            nn.init.zeros_(self.weigh.weight)
        self.query_mean: Tensor
        self.query_std: Tensor
        self.candidate_mean: Tensor
        self.candidate_std: Tensor
        for name, width in (("query", query_width), ("candidate", candidate_width)):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_std", torch.ones(width))

    @torch.no_grad()
    def fit_standardiser(self, queries: Tensor, candidates: Tensor) -> None:
        """Set the inputs' mean and deviation from the rows of train questions (N, Dq) and demonstrations (M, Dc)."""
        for name, rows in (("query", queries), ("candidate", candidates)):
            getattr(self, f"{name}_mean").copy_(rows.mean(0))
            getattr(self, f"{name}_std").copy_(rows.std(0, correction=0).clamp_min(1e-4))

    def encode(self, batch: Batch) -> Encoded:
        """Question and pool, once for all sequences. Raises DataError when rows have another width."""
        if batch.query.shape[-1] != self.query_width or batch.candidates.shape[-1] != self.candidate_width:
            raise DataError(
                f"features have {batch.query.shape[-1]} and {batch.candidates.shape[-1]} columns, "
                f"the selector was made for {self.query_width} and {self.candidate_width}.",
                "Use the encoder that it was trained with.",
            )
        mask = batch.pool_mask
        query = self.situation(((batch.query - self.query_mean) / self.query_std)[:, None]).squeeze(1)  # (B, W)
        rows = (batch.candidates - self.candidate_mean) / self.candidate_std  # (B, K, Dc)
        candidates = self.situation(rows[..., : self.query_width]) + self.answered(rows)  # (B, K, W)
        for layer in self.cross:
            query, candidates = layer(query, candidates, mask)
        prior = candidates.new_zeros(candidates.shape[:2])
        if self.weigh is not None:
            prior = self.weigh(_within_pool(batch.similarity, mask)).squeeze(-1) / self.settings.temperature  # (B, K)
        if mask is not None:
            prior = prior.masked_fill(~mask, -torch.inf)
        return Encoded(query, candidates, F.normalize(candidates, dim=-1), prior)

    def scores(self, encoded: Encoded, state: Tensor, chosen: Tensor) -> Tensor:
        """(B, C, K) of the next step from the states (B, C, W); -inf where `chosen` (B, C, K)."""
        look = F.normalize(self.look(state), dim=-1)  # (B, C, W)
        cosine = look @ encoded.keys.transpose(1, 2)  # (B, C, K)
        return (cosine / self.settings.temperature + encoded.prior[:, None]).masked_fill(chosen, -torch.inf)

    def after(self, encoded: Encoded, state: Tensor, position: Tensor) -> Tensor:
        """(B, C, W) the states once `position` (B, C) has been chosen."""
        if self.step is None:
            return state
        picked = _rows_at(encoded.inputs, position)  # (B, C, W)
        if isinstance(self.step, nn.GRUCell):
            new: Tensor = self.step(picked.flatten(0, 1), state.flatten(0, 1))
            return new.view_as(state)
        gate = torch.sigmoid(self.step(torch.cat([state, picked], dim=-1)))
        return state + gate * (picked - state)

    def step_log_probs(self, batch: Batch, sequences: Tensor) -> Tensor:
        """(B, C, T) log-probability of each step of `sequences` (B, C, T), pool positions, by teacher forcing.

        Steps of -1 (padding, at the end) count 0.
        """
        encoded = self.encode(batch)
        b, c, _ = sequences.shape
        state = encoded.start[:, None].expand(b, c, -1)  # (B, C, W)
        chosen = torch.zeros(b, c, encoded.keys.shape[1], dtype=torch.bool)  # (B, C, K)
        steps = []
        for position in sequences.unbind(-1):  # (B, C)
            real, at = position >= 0, position.clamp_min(0)
            logp = self.scores(encoded, state, chosen).log_softmax(-1).gather(-1, at[..., None]).squeeze(-1)  # (B, C)
            steps.append(torch.where(real, logp, torch.zeros_like(logp)))
            # A padded step marks nothing: else position 0 would be -inf later, and its gradient NaN.
            chosen = chosen | (F.one_hot(at, chosen.shape[-1]).bool() & real[..., None])
            state = self.after(encoded, state, at)
        return torch.stack(steps, dim=-1)

    def log_probs(self, batch: Batch, sequences: Tensor) -> Tensor:
        """(B, C) log-probability of each ordered sequence (B, C, T), padded with -1."""
        return self.step_log_probs(batch, sequences).sum(-1)

    @torch.no_grad()
    def beam(self, batch: Batch, shots: int, beams: int) -> tuple[Tensor, Tensor]:
        """The most probable sequences: positions (B, beams, shots) and log-probabilities (B, beams), best first.

        No demonstration comes twice in a sequence. There are fewer than `beams` where the pool has no more; one that a
        padded pool cannot fill has log-probability -inf. Raises DataError when a pool has fewer than `shots`.
        """
        encoded, k = self._encode_for(batch, shots)
        b = encoded.start.shape[0]
        positions = torch.zeros(b, 1, 0, dtype=torch.long)
        total, state = torch.zeros(b, 1), encoded.start[:, None]  # (B, C), (B, C, W)
        chosen = torch.zeros(b, 1, k, dtype=torch.bool)
        possible = 1
        for step in range(shots):
            possible *= k - step
            logp = self.scores(encoded, state, chosen).log_softmax(-1) + total[..., None]  # (B, C, K)
            total, flat = logp.flatten(1).topk(min(beams, possible), dim=1)  # (B, C')
            parent, position = flat // k, flat % k
            positions = torch.cat([_rows_at(positions, parent), position[..., None]], dim=-1)
            chosen = _rows_at(chosen, parent) | F.one_hot(position, k).bool()
            state = self.after(encoded, _rows_at(state, parent), position)
        return positions, total

    @torch.no_grad()
    def sample(
        self, batch: Batch, shots: int, count: int, temperature: float, generator: torch.Generator | None = None
    ) -> Tensor:
        """(B, count, shots) sequences drawn at `temperature`; no demonstration comes twice in a sequence.

        Raises DataError when a pool has fewer than `shots`.
        """
        encoded, k = self._encode_for(batch, shots)
        b = encoded.start.shape[0]
        state = encoded.start[:, None].expand(b, count, -1)
        chosen = torch.zeros(b, count, k, dtype=torch.bool)
        drawn: list[Tensor] = []
        for _ in range(shots):
            probability = (self.scores(encoded, state, chosen) / temperature).softmax(-1)  # (B, C, K)
            position = torch.multinomial(probability.flatten(0, 1), 1, generator=generator).view(b, count)
            drawn.append(position)
            chosen = chosen | F.one_hot(position, k).bool()
            state = self.after(encoded, state, position)
        return torch.stack(drawn, dim=-1)

    def _encode_for(self, batch: Batch, shots: int) -> tuple[Encoded, int]:
        k = batch.candidates.shape[1]
        smallest = k if batch.pool_mask is None else int(batch.pool_mask.sum(1).min())
        if not 1 <= shots <= smallest:
            raise DataError(f"{shots} shots were asked of a pool of {smallest}.", "Ask for fewer, or a larger pool.")
        return self.encode(batch), k


def _rows_at(rows: Tensor, index: Tensor) -> Tensor:
    """(B, C, ...) the rows of (B, K, ...) at `index` (B, C)."""
    return rows.gather(1, index[..., None].expand(*index.shape, rows.shape[-1]))


def _within_pool(similarity: Tensor, mask: Tensor | None) -> Tensor:
    """(B, K, S) in deviations from each pool's mean: cosines of some encoders differ in the third digit only."""
    if mask is None:
        mask = torch.ones(similarity.shape[:2], dtype=torch.bool)
    real = mask[..., None].to(similarity.dtype)  # (B, K, 1)
    n = real.sum(1, keepdim=True).clamp_min(1)
    centred = (similarity - (similarity * real).sum(1, keepdim=True) / n) * real
    deviation = ((centred**2).sum(1, keepdim=True) / n).sqrt()
    return centred / deviation.clamp_min(1e-4)
