"""Reward-weighted cross-entropy over a question's measured candidates (Lever-Plus report, 2025).

w_i = softmax(r_i / tau), L = - sum_i w_i log p(s_i): behavior cloning of the distribution that the rewards ask for; tau
falls from epoch to epoch (cf. reward-weighted regression, Peters and Schaal, ICML 2007). Shapes: B questions, C
candidates.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pydantic import Field

from leverplus_core import FitRun, StopSettings, Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from leverplus_core import FitResult, Policy, TrainingData, TrainingGroups


def weights(rewards: Tensor, mask: Tensor, tau: float) -> Tensor:
    """(B, C) softmax(r / tau) over the candidates where `mask`."""
    return (rewards / tau).masked_fill(~mask, float("-inf")).softmax(-1)


def loss(log_probs: Tensor, rewards: Tensor, mask: Tensor, tau: float) -> Tensor:
    """Scalar: the mean over questions of sum_i w_i CE_i."""
    return -(weights(rewards, mask, tau) * log_probs.masked_fill(~mask, 0.0)).sum(-1).mean()


class RceTrainer(Trainer):
    """Reward-weighted cross-entropy over measured candidates."""

    epochs: int = Field(5, ge=0, description="passes over the training questions; 0 is off")
    tau_start: float = Field(2.0, gt=0, description="temperature of the reward weights in the first epoch")
    tau_end: float = Field(0.5, gt=0, description="temperature in the last epoch; linear in between")
    stop: StopSettings = StopSettings()

    def tau(self, epoch: int) -> float:
        """Linear from `tau_start` in the first epoch (0) to `tau_end` in the last."""
        share = epoch / max(self.epochs - 1, 1)
        return self.tau_start + share * (self.tau_end - self.tau_start)

    def fit(self, policy: Policy, data: TrainingData, validation: TrainingData | None, run: FitRun) -> FitResult:
        from leverplus_core import expected_reward, fit

        def of(log_probs: Tensor, groups: TrainingGroups, epoch: int) -> Tensor:
            return loss(log_probs, groups.rewards, groups.mask, self.tau(epoch))

        score = partial(expected_reward, cost=self.stop.cost if policy.stops else 0.0)
        return fit(policy, data, validation, self, of, score, run, stop=self.stop)
