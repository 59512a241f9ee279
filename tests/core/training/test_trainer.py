"""The loop of every trainer: expected rewards by hand, the best epoch, and fits that refuse what is not theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from leverplus_core.errors import CheckpointError, DataError
from leverplus_core.selector.policy import Batch, Policy
from leverplus_core.training.base import FitResult, FitRun, Judge, Trainer
from leverplus_core.training.tensors import TrainingData, TrainingGroups, mean_over_sets
from leverplus_core.training.trainer import candidate_log_probs, expected_reward, fit

NewPolicy = Callable[..., Policy]
NewData = Callable[..., TrainingData]
YES = torch.tensor([[True, True]])


class Likelihood(Trainer):
    """The simplest of all trainers: the mean log-probability of the candidates that are there."""

    def fit(self, policy: Policy, data: TrainingData, run: FitRun) -> FitResult:
        return fit(policy, data, self, lambda p, g, _: -_likelihood(p, g).mean(), run)


def _likelihood(log_probs: Tensor, groups: TrainingGroups) -> Tensor:
    return log_probs.masked_fill(~groups.mask, 0.0).sum(-1)


def judge(data: TrainingData) -> Judge:
    """The likelihood of these questions' candidates."""
    return Judge("likelihood", lambda policy: _likelihood(candidate_log_probs(policy, data)[0], data.groups).tolist())


def scripted(*epochs: Sequence[float]) -> Judge:
    """The values of the validation questions, epoch by epoch from 0."""
    left = list(epochs)
    return Judge("accuracy", lambda policy: left.pop(0))


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


def test_peers_are_candidates_of_one_length_or_of_a_question() -> None:
    sequences = torch.tensor([[[0, -1], [0, 1], [1, -1]], [[0, 1], [1, 0], [2, 0]]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    groups = TrainingGroups(sequences, mask, torch.zeros(2, 3))
    nothing, ones, twos = groups.peers("length").unbind(1)
    assert not nothing.any()
    assert ones.tolist() == [[True, False, True], [False, False, False]]
    assert twos.tolist() == [[False, True, False], [True, True, False]]
    assert groups.peers("question").tolist() == [[row] for row in mask.tolist()]
    assert mean_over_sets(torch.tensor([[7.0, 1.0, 3.0], [7.0, 9.0, 3.0]]), groups.peers("length")).tolist() == [
        2.0,
        3.0,
    ]


def test_expected_reward_over_a_question_compares_all_its_candidates() -> None:
    groups = TrainingGroups(torch.tensor([[[0, -1], [1, 2]]]), YES, torch.tensor([[1.0, 3.0]]))
    log_probs = torch.tensor([[math.log(0.6), math.log(0.2)]])
    found = expected_reward(log_probs, torch.zeros(1, 2), groups, within="question").item()
    assert found == pytest.approx(0.75 * 1 + 0.25 * 3)


def test_the_second_of_two_equal_sequences_is_left_out() -> None:
    sequences = torch.tensor([[[0, -1], [0, 1], [0, -1], [0, -1]]])
    mask = torch.tensor([[True, True, True, False]])
    groups = TrainingGroups(sequences, mask, torch.zeros(1, 4))
    assert groups.distinct().mask.tolist() == [[True, True, False, False]]


def test_without_validation_questions_the_last_epoch_wins(new_policy: NewPolicy, new_data: NewData) -> None:
    result = Likelihood(epochs=3).fit(new_policy(), new_data(), FitRun("sft", 0))
    assert (result.best_epoch, result.chosen_epoch, result.tied) == (3, 3, 0)
    assert [set(metrics) for _, metrics in result.curve] == [set(), {"loss"}, {"loss"}, {"loss"}]


def test_the_weights_are_those_of_the_epoch_chosen_on_validation_questions(
    new_policy: NewPolicy, new_data: NewData
) -> None:
    """Later epochs memorize the training questions; the curve says what the chosen one reached."""
    policy, validation = new_policy(), judge(new_data(seed=1))
    result = Likelihood(epochs=12, learning_rate=0.05).fit(policy, new_data(), FitRun("sft", 0, validation))
    scores = [metrics["likelihood"] for _, metrics in result.curve]
    assert result.best_epoch == scores.index(max(scores)) < 12 and result.best_epoch <= result.chosen_epoch
    again = Likelihood(epochs=0).fit(policy, new_data(), FitRun("sft", 0, validation))
    assert again.curve == [(0, {"likelihood": pytest.approx(scores[result.chosen_epoch])})]


def test_the_latest_epoch_within_one_standard_error_of_the_best_is_chosen(
    new_policy: NewPolicy, new_data: NewData
) -> None:
    """Differences to epoch 1: of 0 a half, three times one apart: mean 0.5, error 0.29; of 2 nothing; of 3 a quarter,
    one of four questions: mean 0.25, error 0.25; of 4 three quarters, error 0.25."""
    values = [(1, 1, 0, 0), (1, 1, 1, 1), (1, 1, 1, 1), (1, 1, 1, 0), (0, 0, 0, 1)]
    result = Likelihood(epochs=4).fit(new_policy(), new_data(), FitRun("sft", 0, scripted(*values)))
    assert (result.best_epoch, result.chosen_epoch, result.tied) == (1, 3, 2)
    assert [metrics["accuracy"] for _, metrics in result.curve] == [0.5, 1.0, 1.0, 0.75, 0.25]


def test_the_difference_is_paired_by_question(new_policy: NewPolicy, new_data: NewData) -> None:
    """The same two means: a loss of a tenth on every question is certain, one of four tenths on a single one is not."""
    for last, chosen in (((0.9, 0.3, 0.6, 0.1), 0), ((1.0, 0.4, 0.3, 0.2), 1)):
        values = scripted((1.0, 0.4, 0.7, 0.2), last)
        result = Likelihood(epochs=1).fit(new_policy(), new_data(), FitRun("sft", 0, values))
        assert (result.best_epoch, result.chosen_epoch, result.tied) == (0, chosen, chosen)


def test_where_nothing_is_gained_the_policy_as_it_came_may_be_chosen(new_policy: NewPolicy, new_data: NewData) -> None:
    policy, values = new_policy(), scripted((1, 1, 1), (0, 0, 0), (0, 0, 1))
    start = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    result = Likelihood(epochs=2).fit(policy, new_data(), FitRun("sft", 0, values))
    assert result.chosen_epoch == 0
    assert all(torch.equal(tensor, start[name]) for name, tensor in policy.state_dict().items())


def test_patience_counts_from_the_best_epoch(new_policy: NewPolicy, new_data: NewData) -> None:
    values = scripted((0.0, 0.0), (1.0, 1.0), (0.5, 1.0), (0.0, 0.0), (1.0, 1.0))
    trainer = Likelihood(epochs=9, early_stopping_patience=2)
    result = trainer.fit(new_policy(), new_data(), FitRun("sft", 0, values))
    assert len(result.curve) == 4 and (result.best_epoch, result.chosen_epoch) == (1, 2)


def test_a_fit_checkpoint_of_another_fit_or_damaged_is_refused(
    new_policy: NewPolicy, new_data: NewData, tmp_path: Path
) -> None:
    path, data, trainer = tmp_path / "fit.pt", new_data(), Likelihood(epochs=1)
    trainer.fit(new_policy(), data, FitRun("sft", 0, None, path))
    with pytest.raises(CheckpointError, match="other data or settings"):
        trainer.fit(new_policy(), data, FitRun("sft", 1, None, path))
    with pytest.raises(CheckpointError, match="other data or settings"):
        trainer.fit(new_policy(seed=5), data, FitRun("sft", 0, None, path))
    with pytest.raises(CheckpointError, match="other data or settings"):
        trainer.fit(new_policy(), new_data(seed=1), FitRun("sft", 0, None, path))
    with pytest.raises(CheckpointError, match="other data or settings"):
        Likelihood(epochs=1, weight_decay=0.5).fit(new_policy(), data, FitRun("sft", 0, None, path))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="damaged"):
        trainer.fit(new_policy(), data, FitRun("sft", 0, None, path))


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
        Likelihood(epochs=1).fit(new_policy(), empty, FitRun("sft", 0))


def test_features_that_are_not_finite_stop_the_training(new_policy: NewPolicy, new_data: NewData) -> None:
    data = new_data()

    def broken(rows: Tensor) -> Batch:
        batch = data.inputs(rows)
        return replace(batch, question=replace(batch.question, rows=batch.question.rows * math.nan))

    with pytest.raises(DataError, match="sft: the loss is nan in epoch 1"):
        Likelihood(epochs=1).fit(new_policy(), TrainingData(data.groups, broken), FitRun("sft", 0))
