"""Supervised fine-tuning of the selector on the sequences that the InfoScore beam search kept.

Lever-LM: Yang et al., NeurIPS 2024, arXiv:2312.10104. L = - sum_i w_i log p(s_i), the w_i of a question sum to 1:
equal, or softmax of the InfoScores. Shapes: B questions, C sequences.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from leverplus_core.recipes.settings import SftSettings
from leverplus_core.selector.policy import Policy
from leverplus_core.training.trainer import FitResult, Groups, TrainingData, fit


def loss(log_probs: Tensor, scores: Tensor, mask: Tensor, temperature: float | None = None) -> Tensor:
    """(B,) cross-entropy of `log_probs` (B, C) where `mask`; weights from `scores` / `temperature`, None for equal."""
    logits = torch.zeros_like(scores) if temperature is None else scores / temperature
    weights = logits.masked_fill(~mask, -torch.inf).softmax(-1)  # (B, C)
    return -(weights * log_probs.masked_fill(~mask, 0.0)).sum(-1)


def train(
    policy: Policy, data: TrainingData, validation: TrainingData | None, settings: SftSettings, **how: Any
) -> FitResult:
    """`fit` with this loss; `groups.rewards` are InfoScores; the epoch with the lowest held-out loss wins."""
    temperature = settings.score_temperature if settings.weight_by_score else None

    def of(log_probs: Tensor, groups: Groups) -> Tensor:
        return loss(log_probs, groups.rewards, groups.mask, temperature)

    how.setdefault("name", "sft")
    return fit(policy, data, validation, settings, lambda p, g, _: of(p, g).mean(), lambda p, _, g: -of(p, g), **how)
