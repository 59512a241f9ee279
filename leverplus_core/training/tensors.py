"""Training data as tensors. Shapes: N questions, B of them in a step, C candidates per question, T steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from leverplus_core.errors import DataError
from leverplus_core.selector.policy import Batch, Policy


@dataclass(frozen=True)
class TrainingGroups:
    """Questions with their candidates, the tensors that a loss reads; `start` is filled in by GRPO."""

    sequences: Tensor  # (N, C, T) pool positions, -1 padded at the end
    mask: Tensor  # (N, C) False where there is no candidate
    rewards: Tensor  # (N, C) rewards, or InfoScores for SFT
    varies: Tensor | None = None  # (N,) bool: raw correctness varies among the candidates
    start: Tensor | None = None  # (N, C) log-probabilities under the policy that training starts from

    def __len__(self) -> int:
        return len(self.sequences)

    def to(self, device: torch.device) -> TrainingGroups:
        """The same groups on `device`."""
        return replace(self, **{name: value.to(device) for name, value in vars(self).items() if value is not None})

    def rows(self, index: Tensor) -> TrainingGroups:
        """The groups at `index`."""
        pick = {name: value[index] for name, value in vars(self).items() if value is not None}
        return replace(self, **pick)

    @property
    def lengths(self) -> Tensor:
        """(N, C) shots of each candidate."""
        return (self.sequences >= 0).sum(-1)

    def distinct(self) -> TrainingGroups:
        """The groups without the second of two equal sequences of a question."""
        equal = (self.sequences[:, :, None] == self.sequences[:, None]).all(-1)  # (N, C, C)
        repeats = (equal & self.mask[:, None]).tril(-1).any(-1)
        return replace(self, mask=self.mask & ~repeats)

    def peers(self, within: Literal["length", "question"]) -> Tensor:
        """(N, L, C) the candidates that are compared with each other, in sets: those of a length, or all of a question.

        L is 1 for `question`, else T + 1: a set for each length from 0 on. A set of a question may be empty.
        """
        if within == "question":
            return self.mask[:, None]
        lengths = self.lengths
        each = torch.arange(self.sequences.shape[-1] + 1, device=lengths.device)  # (L,)
        same: Tensor = lengths[:, None] == each[:, None]
        return same & self.mask[:, None]


def mean_over_sets(values: Tensor, sets: Tensor) -> Tensor:
    """(N,) the mean of `values` (N, L) over the sets of `TrainingGroups.peers` (N, L, C) that are not empty."""
    real = sets.any(-1)
    return values.masked_fill(~real, 0.0).sum(-1) / real.sum(-1).clamp_min(1)


@dataclass(frozen=True)
class TrainingData:
    """Groups and where their features come from: `inputs` gathers the selector's batch for row numbers (B,) of
    `groups`. All is on one device, row numbers as well.

    Raises DataError when a group has no candidate, a position comes twice in a sequence or follows padding, or a
    reward is not finite.
    """

    groups: TrainingGroups
    inputs: Callable[[Tensor], Batch]

    def __post_init__(self) -> None:
        g = self.groups
        if not g.mask.any(1).all():
            raise DataError(f"training question {int((~g.mask.any(1)).nonzero()[0])} has no candidate.", "Drop it.")
        if not torch.isfinite(g.rewards[g.mask]).all():
            raise DataError("a reward or score of the training data is NaN or infinite.", "Score and balance again.")
        real = g.sequences[g.mask]  # (n, T)
        ordered = real.sort(-1).values
        repeats = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
        gaps = (real[:, 1:] >= 0) & (real[:, :-1] < 0)
        if repeats.any() or gaps.any():
            raise DataError("a training sequence repeats a position, or has padding before its end.")

    def __len__(self) -> int:
        return len(self.groups)

    def log_probs(self, policy: Policy, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C) of the choices of the candidates of `rows`, and of when they stop; 0 where there is no candidate."""
        mask = self.groups.mask[rows]
        sequences = self.groups.sequences[rows].masked_fill(~mask[..., None], -1)
        choices, stops = policy.step_log_probs(self.inputs(rows), sequences)
        return choices.sum(-1), stops.sum(-1).masked_fill(~mask, 0.0)
