"""Reward-weighted cross-entropy over a question's measured candidates (Lever-Plus report, 2025).

w_i = softmax(r_i / tau) among the candidates of one length, L = - sum_i w_i log p(s_i), the mean over lengths: behavior
cloning of the distribution that the rewards ask for; tau falls from epoch to epoch (cf. reward-weighted regression,
Peters and Schaal, ICML 2007). The report compares all candidates of a question: `within: question`. Shapes: B
questions, L lengths, C candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from leverplus_core import CandidateTrainer, FitRun, Temperature

if TYPE_CHECKING:
    from torch import Tensor

    from leverplus_core import FitResult, Policy, TrainingData, TrainingGroups


def weights(rewards: Tensor, sets: Tensor, tau: float) -> Tensor:
    """(B, L, C) softmax(r / tau) of the rewards (B, C) within each of `sets` (B, L, C); 0 in an empty one."""
    empty = ~sets.any(-1, keepdim=True)  # else a softmax over nothing: NaN
    logits = (rewards / tau)[:, None].masked_fill(~(sets | empty), float("-inf"))
    return logits.softmax(-1).masked_fill(~sets, 0.0)


def loss(log_probs: Tensor, rewards: Tensor, sets: Tensor, tau: float) -> Tensor:
    """Scalar: the mean over questions, of each the mean over its sets, of sum_i w_i CE_i."""
    from leverplus_core import mean_over_sets

    real = log_probs.masked_fill(~sets.any(1), 0.0)  # (B, C)
    return mean_over_sets(-(weights(rewards, sets, tau) * real[:, None]).sum(-1), sets).mean()


class RceTrainer(CandidateTrainer):
    """Reward-weighted cross-entropy over measured candidates."""

    epochs: int = Field(5, ge=0, description="passes over the training questions; 0 is off")
    tau_start: Temperature = Field(2.0, description="temperature of the reward weights in the first epoch")
    tau_end: Temperature = Field(0.5, description="temperature in the last epoch; linear in between")

    def tau(self, epoch: int) -> float:
        """Linear from `tau_start` in the first epoch (0) to `tau_end` in the last."""
        share = epoch / max(self.epochs - 1, 1)
        return self.tau_start + share * (self.tau_end - self.tau_start)

    def fit(self, policy: Policy, data: TrainingData, run: FitRun) -> FitResult:
        from leverplus_core import fit

        def of(log_probs: Tensor, groups: TrainingGroups, epoch: int) -> Tensor:
            return loss(log_probs, groups.rewards, groups.peers(self.within), self.tau(epoch))

        return fit(policy, data, self, of, run)
