"""Group-relative policy optimization over a question's measured candidates.

GRPO: Shao et al., DeepSeekMath, 2024, arXiv:2402.03300; the clipped ratio: Schulman et al., PPO, 2017,
arXiv:1707.06347; the KL estimator k3: Schulman, "Approximating KL divergence", 2020. Old and reference policy are the
selector as GRPO starts, dropout off. Advantages are normalized once, among a question's candidates of one length
(`within: question`, as in the report: among all), and each length counts the same. Shapes: B questions, L lengths, C
candidates.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from leverplus_core import CandidateTrainer, FitRun

if TYPE_CHECKING:
    from torch import Tensor

    from leverplus_core import FitResult, Policy, TrainingData, TrainingGroups

STD_FLOOR = 1e-6


def advantages(rewards: Tensor, sets: Tensor, clip: float) -> Tensor:
    """(B, L, C) (r - mean) / (std + 1e-6) of the rewards (B, C) within each of `sets` (B, L, C), within +-`clip`.

    0 outside of a set. Of n candidates none is further than (n - 1) / sqrt(n) deviations from their mean.
    """
    n = sets.sum(-1, keepdim=True).clamp_min(1)
    given = rewards[:, None].masked_fill(~sets, 0.0)  # (B, L, C)
    centered = (given - given.sum(-1, keepdim=True) / n).masked_fill(~sets, 0.0)
    std = ((centered**2).sum(-1, keepdim=True) / n).sqrt()
    return (centered / (std + STD_FLOOR)).clamp(-clip, clip)


def kl(log_probs: Tensor, reference: Tensor) -> Tensor:
    """(B, C) k3 = r - 1 - log r with r = reference / policy: never negative, 0 where they agree."""
    log_ratio = reference - log_probs
    return log_ratio.exp() - 1 - log_ratio


def loss(
    log_probs: Tensor, start: Tensor, rewards: Tensor, sets: Tensor, varies: Tensor, settings: GrpoTrainer
) -> Tensor:
    """Scalar: mean over the candidates of groups that vary of -min(r A, clip(r) A) + beta KL; 0 if no group varies."""
    from leverplus_core import mean_over_sets

    advantage = advantages(rewards, sets, settings.advantage_clip).sum(1)  # (B, C): each is in one set
    ratio = (log_probs - start).exp()  # (B, C)
    clipped = ratio.clamp(1 - settings.epsilon, 1 + settings.epsilon)
    gain = (ratio * advantage).minimum(clipped * advantage)
    cost = (settings.beta * kl(log_probs, start) - gain)[:, None].masked_fill(~sets, 0.0)  # (B, L, C)
    each = mean_over_sets(cost.sum(-1) / sets.sum(-1).clamp_min(1), sets)  # (B,) a question counts once
    return each.masked_fill(~varies, 0.0).sum() / varies.sum().clamp_min(1)


class GrpoTrainer(CandidateTrainer):
    """Group-relative policy optimization against the policy as it starts."""

    epochs: int = Field(0, ge=0, description="passes over the training questions; 0 is off")
    beta: float = Field(0.1, ge=0, le=1000, description="weight of the KL term")
    epsilon: float = Field(0.2, gt=0, le=10, description="PPO clip of the probability ratio")
    advantage_clip: float = Field(
        5.0,
        gt=0,
        le=1e6,
        description="largest advantage; one of n candidates stays below (n - 1) / sqrt(n), so that 5 binds "
        "from 27 candidates on",
    )

    def fit(self, policy: Policy, data: TrainingData, run: FitRun) -> FitResult:
        """As `Trainer.fit`. Groups whose correctness does not vary teach nothing and are left out.

        Where no group varies the policy stays as it is, which is said. Raises DataError when `varies` was not given.
        """
        from leverplus_core import DataError, FitResult, TrainingData, candidate_log_probs, fit

        groups, inputs = data.groups, data.inputs
        if groups.varies is None:
            raise DataError("grpo: the training data does not say which groups vary in correctness.")
        if not groups.varies.any():
            run.progress.say(f"{run.name}: no question has both a correct and a wrong candidate; nothing is learned")
            return FitResult(0, 0, 0, [])
        teaching = groups.varies.nonzero().squeeze(-1)  # (n,)
        data = TrainingData(groups.rows(teaching), lambda rows: inputs(teaching[rows]))
        data = replace(data, groups=replace(data.groups, start=candidate_log_probs(policy, data)[0]))

        def of(log_probs: Tensor, batch: TrainingGroups, epoch: int) -> Tensor:
            del epoch
            assert batch.start is not None and batch.varies is not None
            return loss(log_probs, batch.start, batch.rewards, batch.peers(self.within), batch.varies, self)

        return fit(policy, data, self, of, run, dropout=False)
