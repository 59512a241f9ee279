"""The built-in trainers: losses by hand, what they learn, and fits that resume to the bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from leverplus_core import (
    Batch,
    Blocks,
    DataError,
    FitResult,
    FitRun,
    Judge,
    Policy,
    Silent,
    Trainer,
    TrainingData,
    TrainingGroups,
    candidate_log_probs,
)  # fmt: skip
from leverplus_core import expected_reward as expected
from leverplus_trainers import grpo, rce, sft
from leverplus_trainers.grpo import GrpoTrainer
from leverplus_trainers.mrt import MrtTrainer
from leverplus_trainers.rce import RceTrainer
from leverplus_trainers.sft import SftTrainer

NewPolicy = Callable[..., Policy]
NewData = Callable[..., TrainingData]
YES = torch.tensor([[True, True]])
TRAINERS: Mapping[str, Trainer] = {
    "sft": SftTrainer(epochs=4, batch_size=8, weight_by_score=True),
    "rce": RceTrainer(epochs=4, batch_size=8),
    "grpo": GrpoTrainer(epochs=4, batch_size=8, learning_rate=1e-3),
    "mrt": MrtTrainer(epochs=4, batch_size=8),
}


def sets(*rows: Sequence[int]) -> Tensor:
    """(1, L, C) sets of candidates."""
    return torch.tensor([rows], dtype=torch.bool)


ALL = sets([1, 1])


def judge(data: TrainingData) -> Judge:
    """The expected reward over these questions' candidates."""
    return Judge("reward", lambda policy: expected(*candidate_log_probs(policy, data), data.groups).tolist())


def test_sft_loss_by_hand() -> None:
    log_probs, scores = torch.tensor([[-1.0, -3.0]]), torch.tensor([[0.2, 0.2 + 0.1 * math.log(3)]])
    assert sft.loss(log_probs, scores, YES).item() == pytest.approx(2.0)
    assert sft.loss(log_probs, scores, YES, 0.1).item() == pytest.approx(0.25 * 1 + 0.75 * 3)
    assert sft.loss(log_probs, scores, torch.tensor([[True, False]])).item() == pytest.approx(1.0)


def test_rce_weights_and_loss_by_hand() -> None:
    rewards = torch.tensor([[2.5, 0.0]])
    w = 1 / (1 + math.exp(-2.5))  # 0.924
    assert rce.weights(rewards, ALL, 1.0)[0, 0].tolist() == pytest.approx([w, 1 - w])
    assert rce.loss(torch.tensor([[-1.0, -2.0]]), rewards, ALL, 1.0).item() == pytest.approx(w + 2 * (1 - w))
    assert rce.weights(rewards, sets([0, 1], [0, 0]), 1.0)[0].tolist() == [[0.0, 1.0], [0.0, 0.0]]


def test_rce_within_a_length_weighs_each_length_the_same() -> None:
    """Of one shot there are two, with rewards log 3 and 0: weights 3/4 and 1/4; of two shots one, with weight 1."""
    rewards, log_probs = torch.tensor([[math.log(3), 0.0, 9.0]]), torch.tensor([[-1.0, -2.0, -5.0]])
    by_length = sets([1, 1, 0], [0, 0, 1])
    assert rce.weights(rewards, by_length, 1.0)[0].tolist() == [pytest.approx([0.75, 0.25, 0]), [0, 0, 1]]
    assert rce.loss(log_probs, rewards, by_length, 1.0).item() == pytest.approx((0.75 * 1 + 0.25 * 2 + 5) / 2)
    # Among all, the reward of the longer one leaves next to nothing to the others.
    assert rce.loss(log_probs, rewards, sets([1, 1, 1]), 1.0).item() == pytest.approx(5, abs=0.01)


def test_rce_temperature_falls_linearly() -> None:
    trainer = RceTrainer(epochs=4, tau_start=2.0, tau_end=0.5)
    assert [trainer.tau(epoch) for epoch in range(4)] == pytest.approx([2.0, 1.5, 1.0, 0.5])
    assert RceTrainer(epochs=1).tau(0) == 2.0


def test_grpo_advantages_by_hand() -> None:
    three = sets([1, 1, 1, 0])
    found = grpo.advantages(torch.tensor([[3.0, 0.0, 0.0, 99.0]]), three, 5.0)  # mean 1, deviation sqrt 2
    assert found[0, 0].tolist() == pytest.approx([2**0.5, -(0.5**0.5), -(0.5**0.5), 0.0], abs=1e-4)
    assert grpo.advantages(torch.tensor([[3.0, 0.0, 0.0, 99.0]]), three, 1.0)[0, 0, 0] == 1.0
    assert (grpo.advantages(torch.full((1, 2), 0.7), ALL, 5.0) == 0).all()


def test_grpo_advantages_within_a_length_by_hand() -> None:
    """Rewards 2 and 0 of one shot, 0 and 1 of two, and one of three shots that has nothing to be compared with."""
    rewards = torch.tensor([[2.0, 0.0, 0.0, 1.0, 3.0]])
    found = grpo.advantages(rewards, sets([1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]), 5.0)
    wanted = [[1, -1, 0, 0, 0], [0, 0, -1, 1, 0], [0, 0, 0, 0, 0]]
    assert found[0].tolist() == [pytest.approx(row, abs=1e-4) for row in wanted]


@pytest.mark.parametrize(("count", "clipped"), [(26, False), (27, True)])
def test_grpo_clips_an_advantage_of_5_from_27_candidates_on(count: int, clipped: bool) -> None:
    rewards = torch.zeros(1, count)
    rewards[0, 0] = 1.0
    free, held = (grpo.advantages(rewards, torch.ones(1, 1, count, dtype=torch.bool), c)[0, 0, 0] for c in (99.0, 5.0))
    assert free.item() == pytest.approx((count - 1) ** 0.5, abs=1e-3)
    assert (held < free) == clipped


def test_grpo_kl_is_zero_at_the_start_and_positive_elsewhere() -> None:
    start = torch.tensor([[-1.0, -2.0]])
    assert (grpo.kl(start, start) == 0).all()
    assert grpo.kl(torch.tensor([[-2.0, -1.0]]), start)[0].tolist() == pytest.approx([math.e - 2, 1 / math.e])


def grpo_gradient(start: Tensor, log_probs: Tensor, varies: bool = True) -> list[float]:
    p = log_probs.clone().requires_grad_()
    rewards = torch.tensor([[1.0, 0.0]])
    grpo.loss(p, start, rewards, ALL, torch.tensor([varies]), GrpoTrainer(beta=0.0)).backward()
    assert p.grad is not None
    return [float(g) for g in p.grad[0]]


def test_grpo_raises_the_better_lowers_the_worse_and_is_clipped_and_gated() -> None:
    start = torch.tensor([[-1.0, -1.0]])
    assert grpo_gradient(start, start) == pytest.approx([-0.5, 0.5], abs=1e-4)  # -A / C at ratio 1
    assert grpo_gradient(start, start + torch.tensor([[0.3, -0.3]])) == [0.0, 0.0]  # moved beyond 1.2 and 0.8
    assert grpo_gradient(start, start, varies=False) == [0.0, 0.0]


def test_mrt_loss_and_its_gradient_by_hand() -> None:
    """p = 0.5 and 0.25 of one shot: Q = 2/3 and 1/3, rewards 3 and 0; one of two shots, reward 1: (2 + 1) / 2."""
    groups = TrainingGroups(
        torch.tensor([[[0, -1], [1, -1], [1, 0]]]), torch.ones(1, 3, dtype=torch.bool), torch.tensor([[3.0, 0.0, 1.0]])
    )
    log_probs = torch.tensor([[math.log(0.5), math.log(0.25), math.log(0.1)]], requires_grad=True)
    loss = MrtTrainer().loss(log_probs, groups)
    loss.backward()
    assert loss.item() == pytest.approx(-1.5)
    assert log_probs.grad is not None  # of Q r: Q (1 - Q) 3 = 2/3, of which a length has half
    assert log_probs.grad[0].tolist() == pytest.approx([-1 / 3, 1 / 3, 0.0])
    # Squared: Q = 4/5 and 1/5.
    assert MrtTrainer(sharpness=2.0).loss(log_probs, groups).item() == pytest.approx(-(2.4 + 1) / 2)
    # Among all of the question: Q = 10/17, 5/17, 2/17.
    assert MrtTrainer(within="question").loss(log_probs, groups).item() == pytest.approx(-32 / 17)


def test_mrt_counts_a_sequence_that_comes_twice_once(new_policy: NewPolicy, new_data: NewData) -> None:
    data, trainer = new_data(), TRAINERS["mrt"]
    g = data.groups
    twice = TrainingGroups(*(torch.cat([part, part[:, :1]], 1) for part in (g.sequences, g.mask, g.rewards)))
    given = (data, replace(data, groups=twice))
    once, again = ([row[1]["loss"] for row in trainer.fit(new_policy(), d, FitRun("mrt", 0)).curve[1:]] for d in given)
    assert once == pytest.approx(again, abs=1e-4)
    doubled = MrtTrainer().loss(candidate_log_probs(new_policy(), given[1])[0], twice).item()
    assert abs(doubled + expected(*candidate_log_probs(new_policy(), data), g).mean().item()) > 0.01


@pytest.mark.parametrize("name", TRAINERS)
def test_training_raises_the_expected_reward_and_keeps_the_chosen_epoch(
    name: str, new_policy: NewPolicy, new_data: NewData
) -> None:
    policy, data, validation = new_policy(), new_data(), new_data(seed=1)
    before = expected(*candidate_log_probs(policy, data), data.groups).mean()
    rows: list[tuple[int, dict[str, float]]] = []
    trainer = TRAINERS[name].model_copy(update={"epochs": 12, "early_stopping_patience": None})
    run = FitRun(name, 0, judge(validation), on_epoch=lambda epoch, metrics: rows.append((epoch, metrics)))
    result = trainer.fit(policy, data, run)
    assert rows == result.curve and [epoch for epoch, _ in rows] == list(range(13))
    scores = [metrics["reward"] for _, metrics in rows]
    assert result.best_epoch == scores.index(max(scores)) <= result.chosen_epoch
    assert expected(*candidate_log_probs(policy, data), data.groups).mean() > before
    reached = expected(*candidate_log_probs(policy, validation), validation.groups).mean().item()
    assert reached == pytest.approx(scores[result.chosen_epoch])


class Killed(Exception):
    """The power goes."""


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_fit_equals_an_unbroken_one_to_the_bit(
    name: str, stop_after: int, new_policy: NewPolicy, new_data: NewData, tmp_path: Path
) -> None:
    trainer, data, validation = TRAINERS[name], new_data(), judge(new_data(seed=1))
    unbroken = new_policy()
    wanted = trainer.fit(unbroken, data, FitRun(name, 3, validation))

    def kill(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == stop_after:
            raise Killed

    path = tmp_path / "fit.pt"
    with pytest.raises(Killed):
        trainer.fit(new_policy(), data, FitRun(name, 3, validation, path, on_epoch=kill))
    resumed = new_policy()
    torch.rand(7)  # the global generator has moved on
    assert trainer.fit(resumed, data, FitRun(name, 3, validation, path)) == wanted
    for key, tensor in unbroken.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key
    assert trainer.fit(new_policy(), data, FitRun(name, 3, validation, path)) == wanted


class _Reads(TorchDispatchMode):
    """Counts the operators that read a tensor's values on the processor, for which it would wait for a GPU."""

    waits = ("aten::_local_scalar_dense", "aten::nonzero", "aten::_unique2", "aten::masked_select")

    def __init__(self) -> None:
        super().__init__()
        self.counted = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counted += func.name().split(".")[0] in self.waits
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", TRAINERS)
def test_no_step_of_a_fit_waits_for_the_device(name: str, new_policy: NewPolicy, new_data: NewData) -> None:
    counted = []
    for batch_size in (12, 2):  # two steps an epoch, twelve
        trainer = TRAINERS[name].model_copy(update={"batch_size": batch_size})
        with _Reads() as reads:
            trainer.fit(new_policy(), new_data(), FitRun(name, 0))
        counted.append(reads.counted)
    assert counted[0] == counted[1] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("name", TRAINERS)
def test_a_fit_on_a_gpu_finds_what_one_on_the_cpu_does(name: str, new_policy: NewPolicy, new_data: NewData) -> None:
    """Without dropout, whose draws are a device's own."""
    here, there = new_policy(dropout=0.0), new_policy(dropout=0.0).to("cuda")
    data = new_data()
    moved = TrainingData(data.groups.to(torch.device("cuda")), lambda rows: _on_gpu(data.inputs(rows.cpu())))
    for policy, taught in ((here, data), (there, moved)):
        TRAINERS[name].fit(policy, taught, FitRun(name, 0))
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(one, other.cpu(), atol=2e-3, rtol=0)


def _on_gpu(batch: Batch) -> Batch:
    question, shown = (Blocks(b.rows.cuda(), b.widths) for b in (batch.question, batch.candidates))
    return Batch(question, shown, batch.similarity.cuda())


class _Said(Silent):
    """Keeps what a fit says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_grpo_without_a_group_that_varies_leaves_the_policy_as_it_is_and_says_so(
    new_policy: NewPolicy, new_data: NewData
) -> None:
    data, policy, progress = new_data(), new_policy(), _Said()
    same = replace(data, groups=replace(data.groups, varies=torch.zeros(len(data), dtype=torch.bool)))
    start = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    found = GrpoTrainer(epochs=1).fit(policy, same, FitRun("grpo", 0, progress=progress))
    assert found == FitResult(0, 0, 0, [])
    assert progress.lines == ["grpo: no question has both a correct and a wrong candidate; nothing is learned"]
    assert all(torch.equal(tensor, start[name]) for name, tensor in policy.state_dict().items())


def test_grpo_must_be_told_which_groups_vary(new_policy: NewPolicy, new_data: NewData) -> None:
    data = new_data()
    untold = replace(data, groups=replace(data.groups, varies=None))
    with pytest.raises(DataError, match="does not say which groups vary"):
        GrpoTrainer(epochs=1).fit(new_policy(), untold, FitRun("grpo", 0))


def test_grpo_ignores_groups_that_do_not_vary(new_policy: NewPolicy, new_data: NewData) -> None:
    data, trainer = new_data(), GrpoTrainer(epochs=2, batch_size=64, learning_rate=1e-3)
    assert data.groups.varies is not None
    other = data.groups.rewards.clone()
    other[~data.groups.varies] = -other[~data.groups.varies]
    one, two = new_policy(), new_policy()
    trainer.fit(one, data, FitRun("grpo", 0))
    trainer.fit(two, replace(data, groups=replace(data.groups, rewards=other)), FitRun("grpo", 0))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
