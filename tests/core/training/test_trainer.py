"""The loop of every trainer: expected rewards by hand, the best epoch, and fits that refuse what is not theirs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from leverplus_core.errors import CheckpointError, DataError
from leverplus_core.selector.policy import Batch, Policy
from leverplus_core.training.base import FitResult, FitRun, Trainer
from leverplus_core.training.tensors import TrainingData, TrainingGroups
from leverplus_core.training.trainer import expected_reward, fit

NewPolicy = Callable[..., Policy]
NewData = Callable[..., TrainingData]
YES = torch.tensor([[True, True]])


class Likelihood(Trainer):
    """The simplest of all trainers: the mean log-probability of the candidates that are there."""

    def fit(self, policy: Policy, data: TrainingData, validation: TrainingData | None, run: FitRun) -> FitResult:
        def each(log_probs: Tensor, groups: TrainingGroups) -> Tensor:
            return log_probs.masked_fill(~groups.mask, 0.0).sum(-1)

        return fit(policy, data, validation, self, lambda p, g, _: -each(p, g).mean(), lambda p, _, g: each(p, g), run)


def test_expected_reward_counts_a_length_as_often_as_the_policy_stops_there() -> None:
    sequences = torch.tensor([[[0, -1], [1, 2]]])
    groups = TrainingGroups(sequences, YES, torch.tensor([[1.0, 3.0]]))
    stops = torch.tensor([[math.log(0.25), math.log(0.75)]])
    assert expected_reward(torch.zeros(1, 2), stops, groups).item() == pytest.approx(0.25 * 1 + 0.75 * 3)
    costly = expected_reward(torch.zeros(1, 2), stops, groups, cost=0.5).item()
    assert costly == pytest.approx(0.25 * (1 - 0.5) + 0.75 * (3 - 1.0))


def test_expected_reward_compares_equal_lengths_only() -> None:
    sequences = torch.tensor([[[0, -1], [1, -1], [0, 1], [1, 0], [2, 0]]])
    mask = torch.tensor([[True, True, True, True, False]])
    groups = TrainingGroups(sequences, mask, torch.tensor([[1.0, 0.0, 4.0, 0.0, 50.0]]))
    log_probs = torch.tensor([[math.log(0.5), math.log(0.5), math.log(0.03), math.log(0.01), 0.0]])
    assert expected_reward(log_probs, torch.zeros_like(log_probs), groups).item() == pytest.approx(
        (0.5 * 1 + 0.75 * 4) / 2
    )


def test_without_validation_questions_the_last_epoch_wins(new_policy: NewPolicy, new_data: NewData) -> None:
    result = Likelihood(epochs=3).fit(new_policy(), new_data(), None, FitRun("sft", 0))
    assert result.best_epoch == 3 and "validation" not in result.curve[-1][1]


def test_the_weights_are_those_of_the_best_epoch_on_validation_questions(
    new_policy: NewPolicy, new_data: NewData
) -> None:
    """Later epochs memorize the training questions; the curve says which one was kept."""
    policy, validation = new_policy(), new_data(seed=1)
    result = Likelihood(epochs=12, learning_rate=0.05).fit(policy, new_data(), validation, FitRun("sft", 0))
    scores = [metrics["validation"] for _, metrics in result.curve]
    assert result.best_epoch == scores.index(max(scores)) < 12
    again = Likelihood(epochs=0).fit(policy, new_data(), validation, FitRun("sft", 0))
    assert again.curve == [(0, {"validation": pytest.approx(max(scores))})]


def test_a_fit_checkpoint_of_another_fit_or_damaged_is_refused(
    new_policy: NewPolicy, new_data: NewData, tmp_path: Path
) -> None:
    path, data, trainer = tmp_path / "fit.pt", new_data(), Likelihood(epochs=1)
    trainer.fit(new_policy(), data, None, FitRun("sft", 0, path))
    with pytest.raises(CheckpointError, match="other data or settings"):
        trainer.fit(new_policy(), data, None, FitRun("sft", 1, path))
    with pytest.raises(CheckpointError, match="other data or settings"):
        trainer.fit(new_policy(seed=5), data, None, FitRun("sft", 0, path))
    with pytest.raises(CheckpointError, match="other data or settings"):
        trainer.fit(new_policy(), new_data(seed=1), None, FitRun("sft", 0, path))
    with pytest.raises(CheckpointError, match="other data or settings"):
        Likelihood(epochs=1, weight_decay=0.5).fit(new_policy(), data, None, FitRun("sft", 0, path))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="damaged"):
        trainer.fit(new_policy(), data, None, FitRun("sft", 0, path))


def test_bad_training_data_is_one_line(new_data: NewData) -> None:
    data = new_data()
    rewards = data.groups.rewards.clone()
    rewards[3, 0] = math.nan
    with pytest.raises(DataError, match="NaN"):
        replace(data, groups=replace(data.groups, rewards=rewards))
    repeated = data.groups.sequences.clone()
    repeated[2, 1] = 4
    with pytest.raises(DataError, match="repeats a position"):
        replace(data, groups=replace(data.groups, sequences=repeated))
    mask = data.groups.mask.clone()
    mask[5] = False
    with pytest.raises(DataError, match="question 5 has no candidate"):
        replace(data, groups=replace(data.groups, mask=mask))


def test_no_training_question_is_one_line(new_policy: NewPolicy, new_data: NewData) -> None:
    data = new_data()
    empty = TrainingData(data.groups.rows(torch.arange(0)), data.inputs)
    with pytest.raises(DataError, match="sft: no training question is left"):
        Likelihood(epochs=1).fit(new_policy(), empty, None, FitRun("sft", 0))


def test_features_that_are_not_finite_stop_the_training(new_policy: NewPolicy, new_data: NewData) -> None:
    data = new_data()

    def broken(rows: list[int]) -> Batch:
        batch = data.inputs(rows)
        return replace(batch, question=replace(batch.question, rows=batch.question.rows * math.nan))

    with pytest.raises(DataError, match="sft: the loss is nan in epoch 1"):
        Likelihood(epochs=1).fit(new_policy(), TrainingData(data.groups, broken), None, FitRun("sft", 0))
