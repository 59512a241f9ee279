"""A trainer: direct preference optimization (Rafailov et al., NeurIPS 2023, arXiv:2305.18290)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from leverplus_core import CandidateTrainer, FitRun

if TYPE_CHECKING:
    from torch import Tensor

    from leverplus_core import FitResult, Policy, TrainingData, TrainingGroups


class DpoTrainer(CandidateTrainer):
    """Direct preference optimization: of two candidates of a question, the one with the higher reward is preferred."""

    epochs: int = Field(0, ge=0, description="passes over the training questions; 0 is off")
    beta: float = Field(0.1, gt=0, description="strength of the pull toward the policy as it starts")

    def fit(self, policy: Policy, data: TrainingData, run: FitRun) -> FitResult:
        from leverplus_core import candidate_log_probs, fit

        start = candidate_log_probs(policy, data)[0]
        data = replace(data, groups=replace(data.groups, start=start))

        def loss(log_probs: Tensor, groups: TrainingGroups, epoch: int) -> Tensor:
            assert groups.start is not None
            margin = self.beta * (log_probs - groups.start)  # (B, C)
            preferred = groups.rewards[:, :, None] > groups.rewards[:, None]
            sets = groups.peers(self.within)  # (B, L, C)
            pairs = preferred & (sets[..., None] & sets[:, :, None]).any(1)  # (B, C, C)
            cost = -(margin[:, :, None] - margin[:, None]).sigmoid().log().masked_fill(~pairs, 0.0)
            return cost.sum() / pairs.sum().clamp_min(1)

        return fit(policy, data, self, loss, run, dropout=False)
