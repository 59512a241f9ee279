"""Supervised fine-tuning of the selector on the sequences that the InfoScore beam search kept.

Lever-LM: Yang et al., NeurIPS 2024, arXiv:2312.10104. L = - sum_i w_i log p(s_i), where the w_i of a question sum to 1:
equal, or the softmax of the InfoScores. Shapes: B questions, C sequences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from leverplus_core import FitRun, Temperature, Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from leverplus_core import FitResult, Policy, TrainingData, TrainingGroups


def loss(log_probs: Tensor, scores: Tensor, mask: Tensor, temperature: float | None = None) -> Tensor:
    """Scalar: mean over questions of the cross-entropy of `log_probs` (B, C) where `mask`.

    Weights from `scores` / `temperature`; None for equal ones.
    """
    logits = scores.new_zeros(scores.shape) if temperature is None else scores / temperature
    weights = logits.masked_fill(~mask, float("-inf")).softmax(-1)  # (B, C)
    return -(weights * log_probs.masked_fill(~mask, 0.0)).sum(-1).mean()


class SftTrainer(Trainer):
    """Supervised: the sequences that the InfoScore beam search kept are the labels."""

    weight_by_score: bool = Field(False, description="weight a question's sequences by the softmax of their InfoScores")
    score_temperature: Temperature = Field(0.1, description="temperature of that softmax")

    def fit(self, policy: Policy, data: TrainingData, run: FitRun) -> FitResult:
        from leverplus_core import fit

        temperature = self.score_temperature if self.weight_by_score else None

        def of(log_probs: Tensor, groups: TrainingGroups, epoch: int) -> Tensor:
            del epoch
            return loss(log_probs, groups.rewards, groups.mask, temperature)

        return fit(policy, data, self, of, run)
