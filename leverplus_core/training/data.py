"""From sequences and measured candidates to the tensors that a trainer learns from, and back to a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leverplus_core.candidates.store import Groups
from leverplus_core.errors import DataError, PluginError
from leverplus_core.io import read_jsonl, write_jsonl
from leverplus_core.plugins.contracts import Reward
from leverplus_core.progress import Progress
from leverplus_core.records import ScoredSequence
from leverplus_core.seeding import derive, rng
from leverplus_core.selector.base import TrainableSelector
from leverplus_core.selector.checkpoint import DESCRIPTION, load_policy, read_meta, save_policy
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import Policy
from leverplus_core.training.base import CurveRow, FitResult, FitRun, Judge, OnEpoch, Trainer
from leverplus_core.training.tensors import TrainingData, TrainingGroups

CURVE, STATE = "curve.jsonl", "fit-state.pt"
VALIDATION_QUESTIONS = "validation_questions"
"""In a checkpoint's meta: the ids of the questions that chose its epoch."""
LEARNED_FROM = "learned_from"
"""And the ids of all questions that it was trained or validated on."""
Rows = Mapping[str, Sequence[tuple[Sequence[str], float]]]
"""question id -> (demonstration ids, reward) of each of its sequences"""


@dataclass(frozen=True)
class TrainingContext:
    """What all trainings share: what the selector sees, its architecture, and which questions are for validation."""

    features: SelectorFeatures
    selector: TrainableSelector
    validation_fraction: float
    seed: int
    progress: Progress

    def validation_ids(self, ids: Sequence[str]) -> set[str]:
        """The train questions that choose the epoch: the same for every stage, whatever a balancer drops."""
        return {i for i in ids if rng(self.seed, "held out", i).random() < self.validation_fraction}

    def questions_meta(self, ids: Sequence[str]) -> dict[str, list[str]]:
        """For a checkpoint's meta: which questions it has seen, and which of them chose its epoch."""
        return {VALIDATION_QUESTIONS: sorted(self.validation_ids(ids)), LEARNED_FROM: sorted(ids)}

    def init_policy(self, folder: Path | None, ids: Sequence[str]) -> Policy:
        """The policy in `folder`; without one a new policy, whose standardizer is fitted to the training questions
        among `ids`. Raises CheckpointError for a checkpoint that does not fit."""
        if folder is not None:
            return load_policy(folder, self.selector).to(self.features.device)
        validation = self.validation_ids(ids)
        torch.manual_seed(derive(self.seed, "selector"))
        policy = self.selector.policy(self.features.widths)
        if not isinstance(policy, Policy):
            raise PluginError(f"selector {type(self.selector).__name__}: {self.selector.network} is not a Policy.")
        rows = [self.features.row[q] for q in ids if q not in validation]
        policy.to(self.features.device).fit_standardizer(self.features.questions.rows[rows], self.features.bank.rows)
        return policy.eval()

    def teaching(self, rows: Rows, correct: Mapping[str, Sequence[bool]] | None = None) -> TrainingData:
        """Data of the questions that are not for validation."""
        validation = self.validation_ids(list(rows))
        return training_data(self.features, {q: r for q, r in rows.items() if q not in validation}, correct)


def training_data(
    features: SelectorFeatures, rows: Rows, correct: Mapping[str, Sequence[bool]] | None = None
) -> TrainingData:
    """Pad each question's (demonstration ids, reward) rows into tensors; labels are positions in the question's pool.

    Raises DataError for a sequence with a demonstration that is not in the question's pool.
    """
    ids = list(rows)
    count = max((len(rows[q]) for q in ids), default=1)
    longest = max((len(sequence) for q in ids for sequence, _ in rows[q]), default=1)
    sequences = torch.full((len(ids), count, max(longest, 1)), -1)
    mask = torch.zeros(len(ids), count, dtype=torch.bool)
    rewards = torch.zeros(len(ids), count)
    for i, q in enumerate(ids):
        place = {demonstration: p for p, demonstration in enumerate(features.pool_ids[q])}
        for j, (sequence, reward) in enumerate(rows[q]):
            absent = [d for d in sequence if d not in place]
            if absent:
                raise DataError(
                    f"question {q}: demonstration {absent[0]} is not in its pool.",
                    "Pools and candidates are from different runs.",
                )
            sequences[i, j, : len(sequence)] = torch.tensor([place[d] for d in sequence], dtype=torch.long)
            mask[i, j], rewards[i, j] = True, reward
    varies = None if correct is None else torch.tensor([len(set(correct[q])) > 1 for q in ids], dtype=torch.bool)
    groups = TrainingGroups(sequences, mask, rewards, varies).to(features.device)
    rows_of = features.rows_of(ids)
    return TrainingData(groups, lambda index: features.gather(rows_of[index]))


def fit_sequences(
    policy: Policy,
    context: TrainingContext,
    sequences: Mapping[str, Sequence[ScoredSequence]],
    trainer: Trainer,
    run: FitRun,
) -> FitResult:
    """Train `policy` in place on the sequences of the beam search; their rewards are InfoScores."""
    rows: Rows = {q: [(k.demonstrations, k.score) for k in kept] for q, kept in sequences.items()}
    return trainer.fit(policy, context.teaching(rows), run)


def fit_candidates(
    policy: Policy, context: TrainingContext, groups: Groups, reward: Reward, trainer: Trainer, run: FitRun
) -> FitResult:
    """Train `policy` in place on measured candidates."""
    groups = groups_for(policy, groups)
    rows: Rows = {
        q: list(zip([c.demonstrations for c in group], reward.compute(group), strict=True))
        for q, group in groups.items()
    }
    data = context.teaching(rows, {q: [c.correct for c in group] for q, group in groups.items()})
    return trainer.fit(policy, data, run)


def groups_for(policy: Policy, groups: Groups) -> Groups:
    """What a policy can choose: an empty sequence only where it has a learned stop; empty groups are left out."""
    if not policy.stops:
        groups = {q: [c for c in group if c.demonstrations] for q, group in groups.items()}
    return {q: group for q, group in groups.items() if group}


def train(
    out: Path,
    context: TrainingContext,
    name: str,
    trainer: Trainer,
    learned_from: Mapping[str, Sequence[ScoredSequence]] | Groups,
    reward: Reward | None,
    start: Path | None,
    judge: Judge | None,
    ids: Sequence[str],
    on_epoch: OnEpoch,
) -> dict[str, Any]:
    """Continue from the policy in `start` (None: a new one), write the trained one, and return the stage's metadata.

    `learned_from` are sequences of the beam search, or groups of candidates with the `reward` that values them; `ids`
    are all questions that it may have seen: those of `learned_from`, those that a balancer dropped, and those that
    `judge` asks.
    """
    policy = context.init_policy(start, ids)
    run = FitRun(name, context.seed, judge, out / STATE, context.progress, on_epoch)
    if reward is None:
        result = fit_sequences(policy, context, learned_from, trainer, run)  # type: ignore[arg-type]
    else:
        result = fit_candidates(policy, context, learned_from, reward, trainer, run)  # type: ignore[arg-type]
    metadata = epochs_meta(result)
    save_trained(out, policy, result.curve, {**metadata, **context.questions_meta(ids)})
    return metadata


def epochs_meta(result: FitResult) -> dict[str, int]:
    """Which epoch was best on the validation questions, which was chosen, and how many others are not told apart."""
    return {"best_epoch": result.best_epoch, "chosen_epoch": result.chosen_epoch, "tied": result.tied}


def trained_metadata(folder: Path) -> dict[str, Any] | None:
    """What `train` returned for the finished policy in `folder`; None where there is none yet."""
    if not (folder / DESCRIPTION).exists():
        return None
    return {k: v for k, v in read_meta(folder).items() if k not in (VALIDATION_QUESTIONS, LEARNED_FROM)}


def save_trained(out: Path, policy: Policy, curve: Sequence[CurveRow], meta: Mapping[str, Any]) -> None:
    """Write the curve, then the policy, and remove the state from which a killed fit would have resumed."""
    write_jsonl(out / CURVE, ({"step": step, **values} for step, values in curve))
    save_policy(out, policy, meta)
    (out / STATE).unlink(missing_ok=True)


def read_curve(folder: Path) -> list[CurveRow]:
    """(epoch, metrics) rows of a training stage. Raises DataError for a file that is absent or cut."""
    return [(int(row.pop("step")), row) for row in read_jsonl(folder / CURVE)]
