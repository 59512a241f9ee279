"""The network of `lever_lm`, the autoregressive selector, a small GPT-2 that writes a sequence of demonstrations.

Lever-LM: Yang et al., NeurIPS 2024 (arXiv:2312.10104). The "words" are the question and the demonstrations chosen so
far, each its projected features; the next one is scored against the pool. In the paper the vocabulary is a fixed set
of train items; here it is the question's pool, so that items never seen in training can be chosen. Letters at line
ends: B questions, K pool, C sequences, T words so far, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from leverplus_core import Batch, Encoded, FeatureWidths, Policy, StopHead, gather_rows
from leverplus_selectors.lever_lm import LeverLmSelector

MOST_WORDS = 33  # the question and up to 32 demonstrations


class LeverLmPolicy(Policy):
    """The state is the words so far; the last one's hidden vector is compared with the pool."""

    def __init__(self, selector: LeverLmSelector, widths: FeatureWidths) -> None:
        super().__init__(selector, widths, selector.stop)
        w = selector.width
        self.ask = nn.Sequential(nn.Linear(sum(widths.question.values()), w), nn.LayerNorm(w))
        self.show = nn.Sequential(nn.Linear(sum(widths.candidate.values()), w), nn.LayerNorm(w))
        config = GPT2Config(
            vocab_size=1, bos_token_id=None, eos_token_id=None, n_positions=MOST_WORDS,
            n_embd=w, n_layer=selector.layers, n_head=selector.heads,
            resid_pdrop=selector.dropout, embd_pdrop=selector.dropout, attn_pdrop=selector.dropout, use_cache=False,
        )  # fmt: skip
        self.gpt2 = GPT2Model(config)
        self.gpt2.wte.weight.requires_grad_(False)  # words come as features
        if selector.stop:
            self.stop_head = StopHead(w, selector.dropout)

    def encode(self, batch: Batch) -> Encoded:
        question, shown = self.standardized(batch)
        words = self.show(shown.rows)  # (B, K, W)
        prior = words.new_zeros(words.shape[:2])
        if batch.pool_mask is not None:
            prior = prior.masked_fill(~batch.pool_mask, -torch.inf)
        return Encoded(self.ask(question.rows)[:, None], words, words, prior)  # start: (B, 1, W)

    def scores(self, encoded: Encoded, state: Tensor, chosen: Tensor) -> Tensor:
        said = self._last(state)  # (B, C, W)
        logits: Tensor = said @ encoded.keys.transpose(1, 2) / math.sqrt(said.shape[-1])  # (B, C, K)
        return (logits + encoded.prior[:, None]).masked_fill(chosen, -torch.inf)

    def next_state(self, encoded: Encoded, state: Tensor, position: Tensor) -> Tensor:
        return torch.cat([state, gather_rows(encoded.inputs, position)[:, :, None]], dim=2)  # (B, C, T + 1, W)

    def stop_logit(self, encoded: Encoded, state: Tensor, chosen: Tensor) -> Tensor:
        start = encoded.start[:, None]  # (B, 1, 1, W)
        first = self.scores(encoded, start, torch.zeros_like(chosen[:, :1]))[:, 0]  # (B, K)
        said = self._last(state)
        logit: Tensor = self.stop_head(said, start[:, :, 0].expand_as(said), first, chosen)
        return logit

    def _last(self, state: Tensor) -> Tensor:
        b, c, t, w = state.shape
        # Without a mask transformers looks for packed sequences, and a GPU is waited for at every call.
        earlier = torch.ones(1, 1, t, t, dtype=torch.bool, device=state.device).tril()
        words = state.reshape(b * c, t, w)
        hidden: Tensor = self.gpt2(inputs_embeds=words, attention_mask=earlier).last_hidden_state  # (B C, T, W)
        return hidden[:, -1].view(b, c, w)
