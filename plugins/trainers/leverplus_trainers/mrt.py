"""Minimum-risk training: the expected reward of the policy's choice among a question's measured candidates.

Shen et al., "Minimum Risk Training for Neural Machine Translation", ACL 2016, arXiv:1512.02433:
L = - sum_i Q(s_i) r_i with Q(s_i) = p(s_i)^a / sum_j p(s_j)^a over the candidates of one length, the mean over lengths.
What is raised is what the evaluation measures: the reward of the sequences that the policy prefers, where
reward-weighted cross-entropy fits the probabilities of all. Shapes: B questions, C candidates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from leverplus_core import CandidateTrainer, FitRun

if TYPE_CHECKING:
    from torch import Tensor

    from leverplus_core import FitResult, Policy, TrainingData, TrainingGroups


class MrtTrainer(CandidateTrainer):
    """Minimum-risk training: the expected reward over measured candidates is the objective."""

    epochs: int = Field(0, ge=0, description="passes over the training questions; 0 is off")
    sharpness: float = Field(
        1.0, gt=0, le=100, description="power to which the probabilities are raised before they are normalized"
    )

    def loss(self, log_probs: Tensor, groups: TrainingGroups) -> Tensor:
        """Scalar: minus the mean over questions of the expected reward under p^sharpness."""
        from leverplus_core import expected_reward

        sharp = self.sharpness * log_probs
        return -expected_reward(sharp, sharp.new_zeros(sharp.shape), groups, within=self.within).mean()

    def fit(self, policy: Policy, data: TrainingData, run: FitRun) -> FitResult:
        """As `Trainer.fit`. A sequence that comes twice in a group counts once: p is of sequences, not of draws."""
        from leverplus_core import fit

        def of(log_probs: Tensor, groups: TrainingGroups, epoch: int) -> Tensor:
            del epoch
            return self.loss(log_probs, groups)

        return fit(policy, replace(data, groups=data.groups.distinct()), self, of, run)
