"""The training stages: SFT on the beams, then RCE and GRPO on the balanced candidates; each writes a checkpoint.

Every stage goes on from the policy of an earlier one, or from fresh weights where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leverplus_core.candidates.store import Groups
from leverplus_core.errors import DataError
from leverplus_core.io import read_jsonl, write_jsonl
from leverplus_core.plugins.contracts import Reward
from leverplus_core.progress import Progress
from leverplus_core.recipes.settings import GrpoSettings, Loss, RceSettings, SftSettings
from leverplus_core.records import ScoredSequence
from leverplus_core.seeding import derive, rng
from leverplus_core.selector.checkpoint import load_policy, save_policy
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import Policy, Selector
from leverplus_core.training import grpo, rce, sft
from leverplus_core.training.trainer import CurveRow, FitResult, TrainingData
from leverplus_core.training.trainer import Groups as Tensors

CURVE, STATE = "curve.jsonl", "fit-state.pt"


VALIDATION_QUESTIONS = "validation_questions"
"""In a checkpoint's meta: the ids of the questions that chose its epoch."""


Rows = Mapping[str, Sequence[tuple[Sequence[str], float]]]
"""question id -> (demonstration ids, reward) of each of its sequences"""


@dataclass(frozen=True)
class TrainingContext:
    """What all training stages share: what the selector sees, its architecture, and which questions are held out."""

    table: SelectorFeatures
    selector: Selector
    validation: float
    seed: int
    progress: Progress

    def validation_ids(self, ids: Sequence[str]) -> set[str]:
        """The train questions that choose the epoch: the same for every stage, whatever a balancer drops."""
        return {i for i in ids if rng(self.seed, "held out", i).random() < self.validation}

    def init_policy(self, folder: Path | None, ids: Sequence[str]) -> Policy:
        """The policy in `folder`, or a new one whose standardiser has seen the questions `ids` that are not apart."""
        if folder is not None:
            return load_policy(folder, self.selector)
        apart = self.validation_ids(ids)
        torch.manual_seed(derive(self.seed, "selector"))
        policy = self.selector.policy(self.table.query.shape[1], self.table.bank.shape[1])
        policy.fit_standardizer(self.table.query[[self.table.row[q] for q in ids if q not in apart]], self.table.bank)
        return policy.eval()


def training_data(
    table: SelectorFeatures, rows: Rows, correct: Mapping[str, Sequence[bool]] | None = None
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
        place = {demonstration: p for p, demonstration in enumerate(table.pool_ids[q])}
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
    return TrainingData(Tensors(sequences, mask, rewards, varies), lambda index: table.batch([ids[i] for i in index]))


def from_beams(
    out: Path, school: TrainingContext, beams: Mapping[str, Sequence[ScoredSequence]], settings: SftSettings
) -> dict[str, Any]:
    """SFT: a new policy learns the sequences that the beam search kept."""
    rows: Rows = {q: [(k.demonstrations, k.score) for k in kept] for q, kept in beams.items()}
    policy = school.init_policy(None, list(rows))
    data, judge = _split(school, rows)
    how = {"seed": school.seed, "checkpoint_path": out / STATE, "progress": school.progress}
    return _save(out, policy, sft.train(policy, data, judge, settings, **how), school.validation_ids(list(rows)))


def from_candidates(
    out: Path,
    school: TrainingContext,
    groups: Groups,
    start: Path | None,
    reward: Reward,
    settings: RceSettings | GrpoSettings,
) -> dict[str, Any]:
    """RCE or GRPO, as `settings` say: go on from the policy in `start`."""
    policy = school.init_policy(start, list(groups))
    result = fit_candidates(policy, school, groups, reward, settings, out / STATE)
    return _save(out, policy, result, school.validation_ids(list(groups)))


def fit_candidates(
    policy: Policy,
    school: TrainingContext,
    groups: Groups,
    reward: Reward,
    settings: RceSettings | GrpoSettings,
    state: Path | None = None,
    name: str | None = None,
) -> FitResult:
    """Train `policy` in place. GRPO with nothing to learn leaves it as it is, and says so."""
    if not policy.stops:
        # Nothing was chosen in an empty sequence, so that there is nothing to learn from it.
        groups = {q: [c for c in group if c.demonstrations] for q, group in groups.items()}
    groups = {q: group for q, group in groups.items() if group}
    rows: Rows = {
        q: list(zip([c.demonstrations for c in group], reward.compute(group), strict=True))
        for q, group in groups.items()
    }
    data, judge = _split(school, rows, {q: [c.correct for c in group] for q, group in groups.items()})
    loss: Loss = "grpo" if isinstance(settings, GrpoSettings) else "rce"
    how: dict[str, Any] = {"seed": school.seed, "checkpoint_path": state, "progress": school.progress}
    how["name"] = name or loss
    if isinstance(settings, RceSettings):
        return rce.train(policy, data, judge, settings, **how)
    if data.groups.varies is None or not data.groups.varies.any():
        school.progress.say(f"{how['name']}: no question has both a correct and a wrong candidate; nothing is learned")
        return FitResult(0, [])
    return grpo.train(policy, data, judge, settings, **how)


def _split(
    school: TrainingContext, rows: Rows, correct: Mapping[str, Sequence[bool]] | None = None
) -> tuple[TrainingData, TrainingData | None]:
    apart = school.validation_ids(list(rows))
    taught = {q: r for q, r in rows.items() if q not in apart}
    judging = {q: r for q, r in rows.items() if q in apart}
    data = training_data(school.table, taught, correct)
    return data, training_data(school.table, judging, correct) if judging else None


def _save(out: Path, policy: Policy, result: FitResult, apart: set[str]) -> dict[str, Any]:
    metadata = {"best_epoch": result.best_epoch}
    save_trained(out, policy, result.curve, {**metadata, VALIDATION_QUESTIONS: sorted(apart)})
    return metadata


def save_trained(out: Path, policy: Policy, curve: Sequence[CurveRow], meta: Mapping[str, Any]) -> None:
    """The curve, then the policy; what a resumed fit would go on from is no longer needed."""
    write_jsonl(out / CURVE, ({"step": step, **values} for step, values in curve))
    save_policy(out, policy, meta)
    (out / STATE).unlink(missing_ok=True)


def read_curve(folder: Path) -> list[CurveRow]:
    """(epoch, metrics) of a training stage."""
    return [(int(row.pop("step")), row) for row in read_jsonl(folder / CURVE)]
