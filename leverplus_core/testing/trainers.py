"""The check of trainers."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from leverplus_core.selector.base import FeatureWidths, TrainableSelector
from leverplus_core.testing.parts import check_part, returns
from leverplus_core.training.base import FitRun, Judge, Trainer

if TYPE_CHECKING:
    import torch

    from leverplus_core.selector.policy import Batch, Encoded
    from leverplus_core.training.base import FitResult


def check_trainer(part: Trainer) -> None:
    """A fit ends with finite weights and tells its curve; it is the same every time, also when it was killed."""
    import torch

    from leverplus_core.selector.policy import Batch, Blocks, Encoded, Policy
    from leverplus_core.training.tensors import TrainingData, TrainingGroups
    from leverplus_core.training.trainer import candidate_log_probs, expected_reward

    check_part(part)
    widths = FeatureWidths(image=2, text=2)

    class Linear(Policy):
        def __init__(self) -> None:
            super().__init__(_NoSelector(), widths)
            self.score = torch.nn.Linear(6, 1)

        def encode(self, batch: Batch) -> Encoded:
            prior = self.score(batch.candidates.rows).squeeze(-1)
            nothing = prior.new_zeros(*prior.shape, 1)
            return Encoded(nothing[:, 0], nothing, nothing, prior)

        def scores(self, encoded: Encoded, state: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
            return encoded.prior[:, None].expand_as(chosen).masked_fill(chosen, -torch.inf)

        def next_state(self, encoded: Encoded, state: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            return state

    draw = torch.Generator().manual_seed(0)
    question = torch.randn(6, 4, generator=draw)
    candidates = torch.randn(6, 3, 6, generator=draw)

    def inputs(at: torch.Tensor) -> Batch:
        shown = Blocks(candidates[at], widths.candidate)
        return Batch(Blocks(question[at], widths.question), shown, torch.zeros(len(at), 3, 2))

    sequences = torch.tensor([[[0], [1], [2]]]).expand(6, -1, -1)
    rewards = torch.tensor([[1.0, 0.0, 0.0]]).expand(6, -1)
    groups = TrainingGroups(sequences, torch.ones(6, 3, dtype=torch.bool), rewards, torch.ones(6, dtype=torch.bool))
    data = TrainingData(groups, inputs)
    short = part.model_copy(update={"epochs": 2})

    def fitted(run: FitRun, seed: int) -> tuple[FitResult, list[torch.Tensor]]:
        torch.manual_seed(0)
        policy = Linear()
        torch.manual_seed(seed)  # a trainer that draws from this global state would now train otherwise
        result = short.fit(policy, data, run)
        return result, [p.detach().clone() for p in policy.parameters()]

    judge = Judge("reward", lambda policy: expected_reward(*candidate_log_probs(policy, data), groups).tolist())

    def kill(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 1:
            raise _Killed

    told: list[int] = []
    result, weights = fitted(FitRun("check", 0, judge, on_epoch=partial(_note, told)), seed=1)
    assert [epoch for epoch, _ in result.curve] == told, "every row of the curve is told to on_epoch"
    assert all(bool(torch.isfinite(p).all()) for p in weights), "weights must stay finite"
    returns("trainer", short, "fit", result, policy=Linear())
    again = fitted(FitRun("check", 0, judge), seed=7)[1]
    assert all(map(torch.equal, weights, again)), "the same fit must give the same weights"
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "fit.pt"
        with suppress(_Killed):
            fitted(FitRun("check", 0, judge, checkpoint, on_epoch=kill), seed=1)
        resumed = fitted(FitRun("check", 0, judge, checkpoint), seed=7)[1]
    assert all(map(torch.equal, weights, resumed)), "a fit that was killed must end with the same weights"


class _Killed(Exception):
    """Ends a fit in the middle."""


def _note(told: list[int], epoch: int, metrics: dict[str, float]) -> None:
    told.append(epoch)


class _NoSelector(TrainableSelector):
    """Stands for the selector of the policy that `check_trainer` trains."""
