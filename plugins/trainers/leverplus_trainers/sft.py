"""Supervised fine-tuning of the selector on the sequences that the InfoScore beam search kept.

Lever-LM: Yang et al., NeurIPS 2024, arXiv:2312.10104. L = - sum_i w_i log p(s_i), where the w_i of a question sum to 1:
equal, or the softmax of the InfoScores. Shapes: B questions, C sequences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from leverplus_core import FitRun, Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from leverplus_core import FitResult, Policy, TrainingData


def loss(log_probs: Tensor, scores: Tensor, mask: Tensor, temperature: float | None = None) -> Tensor:
    """(B,) cross-entropy of `log_probs` (B, C) where `mask`; weights from `scores` / `temperature`, None for equal."""
    logits = scores.new_zeros(scores.shape) if temperature is None else scores / temperature
    weights = logits.masked_fill(~mask, float("-inf")).softmax(-1)  # (B, C)
    return -(weights * log_probs.masked_fill(~mask, 0.0)).sum(-1)


class SftTrainer(Trainer):
    """Supervised: the sequences that the InfoScore beam search kept are the labels."""

    learns_from: ClassVar[Literal["sequences", "candidates"]] = "sequences"

    weight_by_score: bool = Field(False, description="weight a question's sequences by the softmax of their InfoScores")
    score_temperature: float = Field(0.1, gt=0, description="temperature of that softmax")

    def fit(self, policy: Policy, data: TrainingData, validation: TrainingData | None, run: FitRun) -> FitResult:
        from leverplus_core import fit

        temperature = self.score_temperature if self.weight_by_score else None
        return fit(
            policy,
            data,
            validation,
            self,
            lambda log_probs, groups, _: loss(log_probs, groups.rewards, groups.mask, temperature).mean(),
            lambda log_probs, _, groups: -loss(log_probs, groups.rewards, groups.mask, temperature),
            run,
        )
