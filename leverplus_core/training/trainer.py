"""One loop for all trainings; the epoch is chosen on validation questions.

AdamW: Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101; the rule of one standard error: Breiman, Friedman, Olshen
and Stone, "Classification and Regression Trees", 1984, section 3.4.3. Each epoch draws its order and its dropout from
a seed of its own and ends in one atomic file, so that a fit that was killed and one that was not are equal to the bit.
Shapes: N questions, B of them in a step, C candidates a question, T steps.
"""

from __future__ import annotations

import copy
import hashlib
import io
import math
import pickle
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from leverplus_core.errors import CheckpointError, DataError
from leverplus_core.io import fingerprint, write_bytes
from leverplus_core.seeding import derive
from leverplus_core.selector.policy import Policy
from leverplus_core.training.base import CandidateTrainer, CurveRow, FitResult, FitRun, Judge, Trainer
from leverplus_core.training.tensors import TrainingData, TrainingGroups

VALIDATION_ROWS = 256  # questions at once where nothing is learned


Loss = Callable[
    [Tensor, TrainingGroups, int], Tensor
]  # log-probabilities of choices (B, C), groups, epoch from 0 -> scalar


@dataclass
class _State:
    """All that changes from epoch to epoch."""

    epoch: int = 0
    best: int = 0
    chosen: int = 0
    kept: dict[int, dict[str, Tensor]] = field(default_factory=dict)  # epoch -> weights, of the best and the chosen
    values: list[list[float]] = field(default_factory=list)  # of the validation questions, an epoch each
    curve: list[CurveRow] = field(default_factory=list)


@torch.no_grad()
def candidate_log_probs(policy: Policy, data: TrainingData) -> tuple[Tensor, Tensor]:
    """(N, C) log-probabilities of the choices of all candidates, and of when they stop, dropout off."""
    policy.eval()
    every = torch.arange(len(data), device=data.groups.mask.device)
    parts = [data.log_probs(policy, rows) for rows in torch.split(every, VALIDATION_ROWS)]
    choices, stops = zip(*parts, strict=True)
    return torch.cat(choices), torch.cat(stops)


def expected_reward(
    log_probs: Tensor,
    stops: Tensor,
    groups: TrainingGroups,
    cost: float = 0.0,
    within: Literal["length", "question"] = "length",
) -> Tensor:
    """(B,) mean reward if the policy chose among a question's measured candidates of equal length; mean over lengths.

    Longer sequences are less probable as such, so that lengths are never compared by what they choose. Where the policy
    decides how many it shows (`stops` is not 0), a length counts as often as it would stop there, and a demonstration
    costs `cost`; otherwise all lengths count the same. `within="question"` compares all candidates nevertheless.
    """
    same = groups.mask[:, None] & groups.mask[:, :, None]
    if within == "length":
        same &= groups.lengths[:, :, None] == groups.lengths[:, None]
    eye = torch.eye(same.shape[1], dtype=torch.bool, device=same.device)  # keeps the rows of absent candidates finite
    rival = log_probs[:, None].masked_fill(~(same | eye), -torch.inf)  # (B, C, C)
    probability = (log_probs - rival.logsumexp(-1)).exp()  # (B, C) among its equals
    weight = (probability * stops.exp()).masked_fill(~groups.mask, 0.0)  # (B, C)
    worth = (groups.rewards - cost * groups.lengths).masked_fill(~groups.mask, 0.0)
    return (weight * worth).sum(1) / weight.sum(1)


def fit(
    policy: Policy,
    data: TrainingData,
    settings: Trainer,
    loss: Loss,
    run: FitRun,
    *,
    dropout: bool = True,
) -> FitResult:
    """Train `policy` in place and leave it with the weights of the epoch that `run.judge` chooses.

    Of the epochs whose paired mean difference to the best one is within one standard error the latest is chosen: they
    are not told apart, and the best of many is best by chance as well. The weights the policy came with are epoch 0 and
    take part; without a judge the last epoch is chosen. A policy with a learned stop learns it from a
    `CandidateTrainer` by raising its expected reward, less what demonstrations cost, whatever it chooses (REINFORCE
    with the measured candidates as samples: Williams 1992). Raises DataError for a loss that is not finite or data
    without a question, CheckpointError for a file at `run.checkpoint` that is damaged or from another fit.

    Policy and data are on one device. Orders are drawn on the CPU and moved once an epoch, and losses stay on the
    device until it ends, so that no step waits for another.
    """
    if not len(data):
        raise DataError(f"{run.name}: no training question is left.", "Measure more questions, or loosen the balancer.")
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    steps = math.ceil(len(data) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_then_cosine(settings, steps * settings.epochs))
    identity = _identity(policy, data, settings, run, dropout)
    state = _State()
    if run.checkpoint is not None and run.checkpoint.exists():
        state = _load(run.checkpoint, identity, policy, optimizer, schedule)
    else:
        _judge(state, policy, run.judge, {})
    for row in state.curve:
        _tell(run, row)
    stop = settings.stop if isinstance(settings, CandidateTrainer) and policy.stops else None
    device = data.groups.mask.device
    drawn_on = [device] if device.type == "cuda" else []
    with run.progress.task(run.name, settings.epochs * steps) as task, torch.random.fork_rng(drawn_on):
        task.advance(state.epoch * steps)
        while state.epoch < settings.epochs and not _out_of_patience(state, settings, run.judge):
            torch.manual_seed(derive(run.seed, run.name, state.epoch))
            policy.train(dropout)
            total = torch.zeros((), dtype=torch.float64, device=device)
            with one_thread():
                for rows in torch.split(torch.randperm(len(data)).to(device), settings.batch_size):
                    groups = data.groups.rows(rows)
                    choices, stops = data.log_probs(policy, rows)
                    value = loss(choices, groups, state.epoch)
                    if stop is not None:
                        value = value - expected_reward(choices.detach(), stops, groups, stop.cost).mean()
                    optimizer.zero_grad()
                    value.backward()
                    torch.nn.utils.clip_grad_norm_(policy.parameters(), settings.max_grad_norm)
                    optimizer.step()
                    schedule.step()
                    total += value.detach().double() * len(rows)
                    task.advance()
            state.epoch += 1
            mean_loss = total.item() / len(data)
            if not math.isfinite(mean_loss):
                raise DataError(
                    f"{run.name}: the loss is {mean_loss} in epoch {state.epoch}.",
                    "Lower learning_rate, or check the features.",
                )
            _judge(state, policy, run.judge, {"loss": mean_loss})
            if run.checkpoint is not None:
                _save(run.checkpoint, identity, state, policy, optimizer, schedule)
            _tell(run, state.curve[-1])
    policy.load_state_dict(state.kept[state.chosen])
    policy.eval()
    tied = sum(_not_told_apart(state.values[state.best], values) for values in state.values)  # with the best itself
    return FitResult(state.best, state.chosen, max(tied - 1, 0), state.curve)


@contextmanager
def one_thread() -> Iterator[None]:
    """Selectors are small: a second thread gains a few percent on an idle machine, and on a busy one the two wait for
    each other for minutes. One also sums in one order, so that a fit is the same whatever the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _judge(state: _State, policy: Policy, judge: Judge | None, row: dict[str, float]) -> None:
    """Add the epoch's curve row and keep its weights when it is the best so far, or not told apart from it."""
    policy.eval()
    if judge is not None:
        with torch.no_grad():
            values = [float(value) for value in judge.values(policy)]
        state.values.append(values)
        row[judge.metric] = statistics.fmean(values)
        if statistics.fmean(values) > statistics.fmean(state.values[state.best]):
            state.best = state.chosen = state.epoch
        elif _not_told_apart(state.values[state.best], values):
            state.chosen = state.epoch
    else:
        state.best = state.chosen = state.epoch
    state.curve.append((state.epoch, row))
    wanted = {state.best, state.chosen}
    state.kept = {epoch: weights for epoch, weights in state.kept.items() if epoch in wanted}
    if state.epoch in wanted:
        state.kept[state.epoch] = copy.deepcopy(policy.state_dict())


def _not_told_apart(best: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the paired mean difference of two epochs is within its standard error."""
    less = [a - b for a, b in zip(best, other, strict=True)]
    error = statistics.stdev(less) / math.sqrt(len(less)) if len(less) > 1 else 0.0
    return statistics.fmean(less) <= error


def _out_of_patience(state: _State, settings: Trainer, judge: Judge | None) -> bool:
    return (
        judge is not None
        and settings.early_stopping_patience is not None
        and state.epoch - state.best >= settings.early_stopping_patience
    )


def _warmup_then_cosine(settings: Trainer, steps: int) -> Callable[[int], float]:
    warm = math.ceil(settings.warmup_ratio * steps)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))

    return factor


def _tell(run: FitRun, row: CurveRow) -> None:
    if run.on_epoch is not None:
        run.on_epoch(*row)


def _identity(policy: Policy, data: TrainingData, settings: Trainer, run: FitRun, dropout: bool) -> str:
    """Differs where the result would: settings, seed, starting weights, groups. Features are the caller's to name."""
    digest = hashlib.sha256()
    groups = [value for value in vars(data.groups).values() if value is not None]
    for tensor in [*policy.state_dict().values(), *groups]:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return fingerprint([settings.model_dump(mode="json"), run.seed, run.name, dropout, digest.hexdigest()])


def _save(
    path: Path, identity: str, state: _State, policy: Policy, optimizer: torch.optim.Optimizer, schedule: Any
) -> None:
    buffer = io.BytesIO()
    content = {"identity": identity, "state": vars(state), "policy": policy.state_dict()}
    torch.save(content | {"optimizer": optimizer.state_dict(), "schedule": schedule.last_epoch}, buffer)
    write_bytes(path, buffer.getvalue())


def _load(path: Path, identity: str, policy: Policy, optimizer: torch.optim.Optimizer, schedule: Any) -> _State:
    try:
        content = torch.load(path, weights_only=True, map_location=next(policy.parameters()).device)
        known = content["identity"]
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as e:
        raise CheckpointError(f"{path} is damaged ({type(e).__name__}).", "Delete it and run again.") from e
    if known != identity:
        raise CheckpointError(f"{path} is from a fit with other data or settings.", "Delete it and run again.")
    policy.load_state_dict(content["policy"])
    optimizer.load_state_dict(content["optimizer"])
    schedule.last_epoch = content["schedule"]  # the optimizer's state holds the rate itself
    return _State(**content["state"])
