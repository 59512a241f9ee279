"""Group-relative policy optimisation over a question's measured candidates.

GRPO: Shao et al., DeepSeekMath, 2024, arXiv:2402.03300; the clipped ratio: Schulman et al., PPO, 2017,
arXiv:1707.06347; the KL estimator k3: Schulman, "Approximating KL divergence", 2020. Old and reference policy are the
selector as GRPO starts, dropout off. Advantages are normalised once, within the whole group. Shapes: B questions, C
candidates.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leverplus_core.errors import DataError
from leverplus_core.recipes.settings import GrpoSettings
from leverplus_core.selector.policy import Policy
from leverplus_core.training.trainer import FitResult, Groups, TrainingData, evaluate, expected_reward, fit

EPSILON = 1e-6


def advantages(rewards: Tensor, mask: Tensor, clip: float) -> Tensor:
    """(B, C) (r - mean) / (std + eps) over the candidates where `mask`, within +-`clip`; 0 elsewhere."""
    real = mask.to(rewards.dtype)
    n = real.sum(-1, keepdim=True)
    centred = (rewards - (rewards.masked_fill(~mask, 0.0)).sum(-1, keepdim=True) / n).masked_fill(~mask, 0.0)
    std = ((centred**2).sum(-1, keepdim=True) / n).sqrt()
    return (centred / (std + EPSILON)).clamp(-clip, clip)


def kl(log_probs: Tensor, reference: Tensor) -> Tensor:
    """(B, C) k3 = r - 1 - log r with r = reference / policy: never negative, 0 where they agree."""
    log_ratio = reference - log_probs
    return log_ratio.exp() - 1 - log_ratio


def loss(
    log_probs: Tensor, start: Tensor, rewards: Tensor, mask: Tensor, varies: Tensor, settings: GrpoSettings
) -> Tensor:
    """Scalar: mean over the candidates of groups that vary of -min(r A, clip(r) A) + beta KL; 0 if no group varies."""
    live = mask & varies[:, None]  # (B, C)
    advantage = advantages(rewards, mask, settings.advantage_clip)
    ratio = (log_probs - start).exp()  # (B, C)
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - settings.epsilon, 1 + settings.epsilon) * advantage)
    cost = (settings.beta * kl(log_probs, start) - gain).masked_fill(~live, 0.0)
    each = cost.sum(-1) / mask.sum(-1)  # (B,) a question counts once, whatever its candidates
    return each.sum() / varies.sum().clamp_min(1)


def train(
    policy: Policy, data: TrainingData, validation: TrainingData | None, settings: GrpoSettings, **how: Any
) -> FitResult:
    """`fit` with this loss from the policy as it is; stops when the expected held-out reward no longer rises.

    Groups whose raw correctness does not vary (`groups.varies`) teach nothing and are left out. Raises DataError when
    `varies` was not given, or no group varies.
    """
    groups, inputs = data.groups, data.inputs
    if groups.varies is None or not groups.varies.any():
        raise DataError(
            "grpo: no question has both a correct and a wrong candidate.", "Measure more candidates, or keep negatives."
        )
    teaching = groups.varies.nonzero().squeeze(-1)  # (n,)
    index = teaching.tolist()
    data = TrainingData(groups.rows(teaching), lambda rows: inputs([index[row] for row in rows]))
    data = replace(data, groups=replace(data.groups, start=evaluate(policy, data)[0]))

    def of(log_probs: Tensor, batch: Groups, epoch: int) -> Tensor:
        del epoch
        assert batch.start is not None and batch.varies is not None
        return loss(log_probs, batch.start, batch.rewards, batch.mask, batch.varies, settings)

    how.setdefault("name", "grpo")
    judge = partial(expected_reward, cost=settings.stop.cost if policy.stops else 0.0)
    return fit(policy, data, validation, settings, of, judge, dropout=False, stop=settings.stop, **how)
