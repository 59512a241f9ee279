"""One loop for all trainings; the epoch is chosen on validation questions.

AdamW: Loshchilov and Hutter, ICLR 2019, arXiv:1711.05101. Each epoch draws its order and its dropout from a seed of
its own and ends in one atomic file, so that a fit that was killed and one that was not are equal to the bit. Shapes:
N questions, B of them in a step, C candidates a question, T steps.
"""

from __future__ import annotations

import copy
import hashlib
import io
import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leverplus_core.errors import CheckpointError, DataError
from leverplus_core.io import fingerprint, write_bytes
from leverplus_core.seeding import derive
from leverplus_core.selector.policy import Policy
from leverplus_core.training.base import CurveRow, FitResult, FitRun, StopSettings, Trainer
from leverplus_core.training.tensors import TrainingData, TrainingGroups

VALIDATION_ROWS = 256  # questions at once where nothing is learned


Loss = Callable[
    [Tensor, TrainingGroups, int], Tensor
]  # log-probabilities of choices (B, C), groups, epoch from 0 -> scalar


Score = Callable[
    [Tensor, Tensor, TrainingGroups], Tensor
]  # of choices, of stopping (B, C), groups -> (B,) higher is better


@dataclass
class _State:
    """All that changes from epoch to epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = -math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    curve: list[CurveRow] = field(default_factory=list)


@torch.no_grad()
def candidate_log_probs(policy: Policy, data: TrainingData) -> tuple[Tensor, Tensor]:
    """(N, C) log-probabilities of the choices of all candidates, and of when they stop, dropout off."""
    policy.eval()
    parts = [data.log_probs(policy, rows) for rows in torch.split(torch.arange(len(data)), VALIDATION_ROWS)]
    choices, stops = zip(*parts, strict=True)
    return torch.cat(choices), torch.cat(stops)


def expected_reward(log_probs: Tensor, stops: Tensor, groups: TrainingGroups, cost: float = 0.0) -> Tensor:
    """(B,) mean reward if the policy chose among a question's measured candidates of equal length; mean over lengths.

    Longer sequences are less probable as such, so that lengths are never compared by what they choose. Where the policy
    decides how many it shows (`stops` is not 0), a length counts as often as it would stop there, and a demonstration
    costs `cost`; otherwise all lengths count the same.
    """
    same = (groups.lengths[:, :, None] == groups.lengths[:, None]) & groups.mask[:, None] & groups.mask[:, :, None]
    eye = torch.eye(same.shape[1], dtype=torch.bool)  # keeps the rows of absent candidates finite
    rival = log_probs[:, None].masked_fill(~(same | eye), -torch.inf)  # (B, C, C)
    probability = (log_probs - rival.logsumexp(-1)).exp()  # (B, C) among its equals
    weight = (probability * stops.exp()).masked_fill(~groups.mask, 0.0)  # (B, C)
    worth = (groups.rewards - cost * groups.lengths).masked_fill(~groups.mask, 0.0)
    return (weight * worth).sum(1) / weight.sum(1)


def fit(
    policy: Policy,
    data: TrainingData,
    validation: TrainingData | None,
    settings: Trainer,
    loss: Loss,
    score: Score,
    run: FitRun,
    *,
    stop: StopSettings | None = None,
    dropout: bool = True,
) -> FitResult:
    """Train `policy` in place and leave it with the weights of the best epoch by mean validation `score`.

    `stop` is how a policy with a learned stop learns it (None: it does not): by raising its expected reward, less what
    demonstrations cost, whatever it chooses (REINFORCE with the measured candidates as samples: Williams 1992). The
    weights it came with are epoch 0 and may win; without validation questions the last epoch wins. Raises DataError for
    a loss that is not finite or data without a question, CheckpointError for a file at `run.checkpoint` that is damaged
    or from another fit.
    """
    if not len(data):
        raise DataError(f"{run.name}: no training question is left.", "Measure more questions, or loosen the balancer.")
    optimizer = torch.optim.AdamW(policy.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = math.ceil(len(data) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _warmup_then_cosine(settings, steps * settings.epochs))
    identity = _identity(policy, data, settings, run, dropout)
    state = _State()
    if run.checkpoint is not None and run.checkpoint.exists():
        state = _load(run.checkpoint, identity, policy, optimizer, schedule)
    else:
        _judge(state, policy, validation, score, {})
    for row in state.curve:
        _tell(run, row)
    with _one_thread(), run.progress.task(run.name, settings.epochs * steps) as task, torch.random.fork_rng([]):
        task.advance(state.epoch * steps)
        while state.epoch < settings.epochs and not _out_of_patience(state, settings, validation):
            torch.manual_seed(derive(run.seed, run.name, state.epoch))
            policy.train(dropout)
            total = 0.0
            for rows in torch.split(torch.randperm(len(data)), settings.batch_size):
                groups = data.groups.rows(rows)
                choices, stops = data.log_probs(policy, rows)
                value = loss(choices, groups, state.epoch)
                if stop is not None and policy.stops:
                    value = value - expected_reward(choices.detach(), stops, groups, stop.cost).mean()
                if not torch.isfinite(value):
                    raise DataError(
                        f"{run.name}: the loss is {value.item()} in epoch {state.epoch + 1}.",
                        "Lower learning_rate, or check the features.",
                    )
                optimizer.zero_grad()
                value.backward()
                torch.nn.utils.clip_grad_norm_(policy.parameters(), settings.max_grad_norm)
                optimizer.step()
                schedule.step()
                total += value.item() * len(rows)
                task.advance()
            state.epoch += 1
            _judge(state, policy, validation, score, {"loss": total / len(data)})
            if run.checkpoint is not None:
                _save(run.checkpoint, identity, state, policy, optimizer, schedule)
            _tell(run, state.curve[-1])
    policy.load_state_dict(state.best)
    policy.eval()
    return FitResult(state.best_epoch, state.curve)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Selectors are small: a second thread gains a few percent on an idle machine, and on a busy one the two wait for
    each other for minutes. One also sums in one order, so that a fit is the same whatever the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _judge(state: _State, policy: Policy, validation: TrainingData | None, score: Score, row: dict[str, float]) -> None:
    """Add the epoch's curve row and keep its weights when they are the best so far."""
    value = float(state.epoch)
    if validation is not None and len(validation):
        value = score(*candidate_log_probs(policy, validation), validation.groups).mean().item()
        row["validation"] = value
    state.curve.append((state.epoch, row))
    if value > state.best_score:
        state.best_epoch, state.best_score = state.epoch, value
        state.best = copy.deepcopy(policy.state_dict())


def _out_of_patience(state: _State, settings: Trainer, validation: TrainingData | None) -> bool:
    return (
        bool(validation)
        and settings.early_stopping_patience is not None
        and state.epoch - state.best_epoch >= settings.early_stopping_patience
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
        digest.update(tensor.detach().contiguous().numpy().tobytes())
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
        content = torch.load(path, weights_only=True)
        known = content["identity"]
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as e:
        raise CheckpointError(f"{path} is damaged ({type(e).__name__}).", "Delete it and run again.") from e
    if known != identity:
        raise CheckpointError(f"{path} is from a fit with other data or settings.", "Delete it and run again.")
    policy.load_state_dict(content["policy"])
    optimizer.load_state_dict(content["optimizer"])
    schedule.last_epoch = content["schedule"]  # the optimizer's state holds the rate itself
    return _State(**content["state"])
