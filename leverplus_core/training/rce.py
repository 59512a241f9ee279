"""Reward-weighted cross-entropy over a question's measured candidates (Lever-Plus report, 2025).

w_i = softmax(r_i / tau), L = - sum_i w_i log p(s_i): behaviour cloning of the distribution that the rewards ask for;
tau falls from epoch to epoch (cf. reward-weighted regression, Peters and Schaal, ICML 2007). Shapes: B questions, C
candidates.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from leverplus_core.recipes.settings import RceSettings
from leverplus_core.selector.policy import Policy
from leverplus_core.training.trainer import FitResult, Groups, TrainingData, expected_reward, fit


def weights(rewards: Tensor, mask: Tensor, tau: float) -> Tensor:
    """(B, C) softmax(r / tau) over the candidates where `mask`."""
    return (rewards / tau).masked_fill(~mask, -torch.inf).softmax(-1)


def loss(log_probs: Tensor, rewards: Tensor, mask: Tensor, tau: float) -> Tensor:
    """Scalar: the mean over questions of sum_i w_i CE_i."""
    return -(weights(rewards, mask, tau) * log_probs.masked_fill(~mask, 0.0)).sum(-1).mean()


def tau_of(epoch: int, settings: RceSettings) -> float:
    """Linear from `tau_start` in the first epoch (0) to `tau_end` in the last."""
    share = epoch / max(settings.epochs - 1, 1)
    return settings.tau_start + share * (settings.tau_end - settings.tau_start)


def train(
    policy: Policy, data: TrainingData, validation: TrainingData | None, settings: RceSettings, **how: Any
) -> FitResult:
    """`fit` with this loss; the epoch with the highest expected held-out reward wins."""

    def of(log_probs: Tensor, groups: Groups, epoch: int) -> Tensor:
        return loss(log_probs, groups.rewards, groups.mask, tau_of(epoch, settings))

    how.setdefault("name", "rce")
    judge = partial(expected_reward, cost=settings.stop.cost if policy.stops else 0.0)
    return fit(policy, data, validation, settings, of, judge, stop=settings.stop, **how)
