"""Losses by hand, one loop for three trainings, resumed to the bit, and checkpoints that refuse what they are not."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from leverplus_core.errors import CheckpointError, DataError
from leverplus_core.recipes.settings import FitSettings, GrpoSettings, RceSettings, SftSettings
from leverplus_core.selector.checkpoint import architecture, load_policy, save_policy
from leverplus_core.selector.policy import Batch, Policy
from leverplus_core.training import grpo, rce, sft
from leverplus_core.training.trainer import Groups, TrainingData, evaluate, expected_reward
from leverplus_selectors.lever_lm import LeverLm
from leverplus_selectors.pointer import PointerPolicy, PointerSelector

torch.set_num_threads(1)

YES = torch.tensor([[True, True]])


SMALL = PointerSelector(width=16, heads=2)


def selector(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    return SMALL.policy(6, 9)


def training_data(questions: int = 24, pool: int = 6, candidates: int = 5, seed: int = 0) -> TrainingData:
    """Candidates of one and two shots; the reward is how far up a fixed direction the first demonstration lies."""
    g = torch.Generator().manual_seed(seed)
    query, bank = torch.randn(questions, 6, generator=g), torch.randn(questions, pool, 9, generator=g)
    sequences = torch.rand(questions, candidates, pool, generator=g).argsort(-1)[..., :2]
    sequences[:, ::2, 1] = -1
    mask = torch.ones(questions, candidates, dtype=torch.bool)
    mask[::3, -1] = False
    rewards = bank[..., 0].gather(1, sequences[..., 0])
    groups = Groups(sequences, mask, rewards, torch.arange(questions) % 4 != 0)
    return TrainingData(groups, lambda rows: Batch(query[rows], bank[rows], bank[rows][..., :2]))


TRAININGS: list[tuple[ModuleType, FitSettings]] = [
    (sft, SftSettings(epochs=4, batch_size=8, weight_by_score=True)),
    (rce, RceSettings(epochs=4, batch_size=8)),
    (grpo, GrpoSettings(epochs=4, batch_size=8, learning_rate=1e-3)),
]


def test_sft_loss_by_hand() -> None:
    log_probs, scores = torch.tensor([[-1.0, -3.0]]), torch.tensor([[0.2, 0.2 + 0.1 * math.log(3)]])
    assert sft.loss(log_probs, scores, YES).item() == pytest.approx(2.0)
    assert sft.loss(log_probs, scores, YES, 0.1).item() == pytest.approx(0.25 * 1 + 0.75 * 3)
    assert sft.loss(log_probs, scores, torch.tensor([[True, False]])).item() == pytest.approx(1.0)


def test_rce_weights_and_loss_by_hand() -> None:
    rewards = torch.tensor([[2.5, 0.0]])
    w = 1 / (1 + math.exp(-2.5))  # 0.924
    assert rce.weights(rewards, YES, 1.0)[0].tolist() == pytest.approx([w, 1 - w])
    assert rce.loss(torch.tensor([[-1.0, -2.0]]), rewards, YES, 1.0).item() == pytest.approx(w + 2 * (1 - w))
    assert rce.weights(rewards, torch.tensor([[False, True]]), 1.0)[0].tolist() == [0.0, 1.0]


def test_rce_temperature_falls_linearly() -> None:
    settings = RceSettings(epochs=4, tau_start=2.0, tau_end=0.5)
    assert [rce.tau_of(e, settings) for e in range(4)] == pytest.approx([2.0, 1.5, 1.0, 0.5])
    assert rce.tau_of(0, RceSettings(epochs=1)) == 2.0


def test_grpo_advantages_by_hand() -> None:
    mask = torch.tensor([[True, True, True, False]])
    made = grpo.advantages(torch.tensor([[3.0, 0.0, 0.0, 99.0]]), mask, 5.0)  # mean 1, deviation sqrt 2
    assert made[0].tolist() == pytest.approx([2**0.5, -(0.5**0.5), -(0.5**0.5), 0.0], abs=1e-4)
    assert grpo.advantages(torch.tensor([[3.0, 0.0, 0.0, 99.0]]), mask, 1.0)[0, 0] == 1.0
    assert (grpo.advantages(torch.full((1, 2), 0.7), YES, 5.0) == 0).all()


def test_grpo_kl_is_zero_at_the_start_and_positive_elsewhere() -> None:
    start = torch.tensor([[-1.0, -2.0]])
    assert (grpo.kl(start, start) == 0).all()
    assert grpo.kl(torch.tensor([[-2.0, -1.0]]), start)[0].tolist() == pytest.approx([math.e - 2, 1 / math.e])


def test_expected_reward_counts_a_length_as_often_as_the_policy_stops_there() -> None:
    sequences = torch.tensor([[[0, -1], [1, 2]]])
    groups = Groups(sequences, YES, torch.tensor([[1.0, 3.0]]))
    stops = torch.tensor([[math.log(0.25), math.log(0.75)]])
    assert expected_reward(torch.zeros(1, 2), stops, groups).item() == pytest.approx(0.25 * 1 + 0.75 * 3)
    costly = expected_reward(torch.zeros(1, 2), stops, groups, cost=0.5).item()
    assert costly == pytest.approx(0.25 * (1 - 0.5) + 0.75 * (3 - 1.0))


def grpo_gradient(start: Tensor, log_probs: Tensor, varies: bool = True) -> list[float]:
    p = log_probs.clone().requires_grad_()
    rewards = torch.tensor([[1.0, 0.0]])
    grpo.loss(p, start, rewards, YES, torch.tensor([varies]), GrpoSettings(beta=0.0)).backward()  # type: ignore[no-untyped-call]
    assert p.grad is not None
    return [float(g) for g in p.grad[0]]


def test_grpo_raises_the_better_lowers_the_worse_and_is_clipped_and_gated() -> None:
    start = torch.tensor([[-1.0, -1.0]])
    assert grpo_gradient(start, start) == pytest.approx([-0.5, 0.5], abs=1e-4)  # -A / C at ratio 1
    assert grpo_gradient(start, start + torch.tensor([[0.3, -0.3]])) == [0.0, 0.0]  # moved beyond 1.2 and 0.8
    assert grpo_gradient(start, start, varies=False) == [0.0, 0.0]


def test_expected_reward_compares_equal_lengths_only() -> None:
    sequences = torch.tensor([[[0, -1], [1, -1], [0, 1], [1, 0], [2, 0]]])
    mask = torch.tensor([[True, True, True, True, False]])
    groups = Groups(sequences, mask, torch.tensor([[1.0, 0.0, 4.0, 0.0, 50.0]]))
    log_probs = torch.tensor([[math.log(0.5), math.log(0.5), math.log(0.03), math.log(0.01), 0.0]])
    assert expected_reward(log_probs, torch.zeros_like(log_probs), groups).item() == pytest.approx(
        (0.5 * 1 + 0.75 * 4) / 2
    )


@pytest.mark.parametrize("training, settings", TRAININGS)
def test_training_raises_the_expected_reward_and_keeps_the_best_epoch(training: ModuleType, settings: Any) -> None:
    made, data, validation = selector(), training_data(), training_data(seed=1)
    before = expected_reward(*evaluate(made, data), data.groups).mean()
    rows: list[tuple[int, dict[str, float]]] = []
    longer = settings.model_copy(update={"epochs": 12, "early_stopping_patience": None})
    result = training.train(made, data, validation, longer, seed=0, on_curve=lambda step, row: rows.append((step, row)))
    assert rows == result.curve and [step for step, _ in rows] == list(range(13))
    scores = [row["validation"] for _, row in rows]
    assert result.best_epoch == scores.index(max(scores))
    assert expected_reward(*evaluate(made, data), data.groups).mean() > before
    if training is not sft:
        assert expected_reward(*evaluate(made, validation), validation.groups).mean().item() == pytest.approx(
            max(scores)
        )


class Killed(Exception):
    """The power goes."""


@pytest.mark.parametrize("training, settings", TRAININGS)
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_fit_equals_an_unbroken_one_to_the_bit(
    training: ModuleType, settings: Any, stop_after: int, tmp_path: Path
) -> None:
    data, validation = training_data(), training_data(seed=1)
    unbroken = selector()
    expected = training.train(unbroken, data, validation, settings, seed=3)

    def kill(step: int, row: dict[str, float]) -> None:
        if step == stop_after:
            raise Killed

    path = tmp_path / "fit.pt"
    with pytest.raises(Killed):
        training.train(selector(), data, validation, settings, seed=3, checkpoint_path=path, on_curve=kill)
    resumed = selector()
    torch.rand(7)  # the global generator stands elsewhere
    result = training.train(resumed, data, validation, settings, seed=3, checkpoint_path=path)
    assert result == expected
    for name, tensor in unbroken.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    again = selector()
    assert training.train(again, data, validation, settings, seed=3, checkpoint_path=path) == expected


def test_a_fit_checkpoint_of_another_fit_or_damaged_is_refused(tmp_path: Path) -> None:
    path, data, settings = tmp_path / "fit.pt", training_data(), SftSettings(epochs=1)
    sft.train(selector(), data, None, settings, seed=0, checkpoint_path=path)
    with pytest.raises(CheckpointError, match="other data or settings"):
        sft.train(selector(), data, None, settings, seed=1, checkpoint_path=path)
    with pytest.raises(CheckpointError, match="other data or settings"):
        sft.train(selector(seed=5), data, None, settings, seed=0, checkpoint_path=path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="damaged"):
        sft.train(selector(), data, None, settings, seed=0, checkpoint_path=path)


def test_with_no_held_out_questions_the_last_epoch_wins() -> None:
    result = sft.train(selector(), training_data(), None, SftSettings(epochs=3), seed=0)
    assert result.best_epoch == 3 and "validation" not in result.curve[-1][1]


def test_grpo_stops_early_where_nothing_is_gained() -> None:
    data, validation = training_data(), training_data(seed=1)
    flat = replace(validation, groups=replace(validation.groups, rewards=torch.zeros(validation.groups.mask.shape)))
    made = selector()
    start = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    result = grpo.train(
        made, data, flat, GrpoSettings(epochs=50, batch_size=8, early_stopping_patience=2, learning_rate=1e-3), seed=0
    )
    assert result.best_epoch == 0 and len(result.curve) == 3
    assert all(torch.equal(tensor, start[name]) for name, tensor in made.state_dict().items())


def test_grpo_wants_groups_that_vary() -> None:
    data = training_data()
    same = replace(data, groups=replace(data.groups, varies=torch.zeros(len(data), dtype=torch.bool)))
    with pytest.raises(DataError, match="both a correct and a wrong"):
        grpo.train(selector(), same, None, GrpoSettings(epochs=1), seed=0)


def test_grpo_ignores_groups_that_do_not_vary() -> None:
    data, settings = training_data(), GrpoSettings(epochs=2, batch_size=64, learning_rate=1e-3)
    assert data.groups.varies is not None
    other = data.groups.rewards.clone()
    other[~data.groups.varies] = -other[~data.groups.varies]
    one, two = selector(), selector()
    grpo.train(one, data, None, settings, seed=0)
    grpo.train(two, replace(data, groups=replace(data.groups, rewards=other)), None, settings, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_bad_training_data_is_one_line() -> None:
    data = training_data()
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


def test_features_that_are_not_finite_stop_the_training() -> None:
    data = training_data()

    def broken(rows: list[int]) -> Batch:
        batch = data.inputs(rows)
        return replace(batch, query=batch.query * math.nan)

    with pytest.raises(DataError, match="sft: the loss is nan in epoch 1"):
        sft.train(selector(), TrainingData(data.groups, broken), None, SftSettings(epochs=1), seed=0)


def test_a_checkpoint_gives_back_the_same_selector(tmp_path: Path) -> None:
    made, data = selector(), training_data()
    made.fit_standardizer(data.inputs([0, 1, 2]).query, data.inputs([0, 1, 2]).candidates.flatten(0, 1))
    save_policy(tmp_path, made, {"encoder": "abc", "stage": "sft"})
    loaded = load_policy(tmp_path, SMALL, {"encoder": "abc", "query_width": 6})
    assert not loaded.training and torch.equal(evaluate(loaded, data)[0], evaluate(made, data)[0])


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "selector.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_checkpoint_that_is_not_what_it_must_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no selector in"):
        load_policy(tmp_path, SMALL)
    save_policy(tmp_path, selector(), {"encoder": "abc"})
    with pytest.raises(CheckpointError, match="another encoder: abc, not xyz"):
        load_policy(tmp_path, SMALL, {"encoder": "xyz"})
    changes: list[dict[str, Any]] = [{"state": "gate"}, {"layers": 2}, {"width": 32}]
    for other in (*(SMALL.model_copy(update=change) for change in changes), LeverLm(width=16, heads=2)):
        with pytest.raises(CheckpointError, match="another architecture") as caught:
            load_policy(tmp_path, other)
        assert "\n" not in str(caught.value)
    edit(tmp_path, architecture=architecture(SMALL.model_copy(update={"layers": 2})))
    with pytest.raises(CheckpointError, match="holds another architecture"):
        load_policy(tmp_path, SMALL.model_copy(update={"layers": 2}))
    edit(tmp_path, meta=3)
    with pytest.raises(CheckpointError, match="does not describe a selector"):
        load_policy(tmp_path, SMALL)
    edit(tmp_path, format=99)
    with pytest.raises(CheckpointError, match="not a selector of format"):
        load_policy(tmp_path, SMALL)
    (tmp_path / "selector.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_policy(tmp_path, SMALL)


def test_cut_or_stale_weights_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "selector.safetensors"
    save_policy(tmp_path, selector(seed=1), {})
    older = weights.read_bytes()
    save_policy(tmp_path, selector(seed=2), {})
    for data in (older, weights.read_bytes()[:-10], b""):
        weights.write_bytes(data)
        with pytest.raises(CheckpointError, match="cut or not the file"):
            load_policy(tmp_path, SMALL)


def test_a_missing_weight_is_refused(tmp_path: Path) -> None:
    class Without(PointerPolicy):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            whole = super().state_dict(*args, **kwargs)
            return {name: tensor for name, tensor in whole.items() if name != "look.weight"}

    save_policy(tmp_path, Without(SMALL, 6, 9), {})
    with pytest.raises(CheckpointError, match=r"Missing key.*look\.weight"):
        load_policy(tmp_path, SMALL)
