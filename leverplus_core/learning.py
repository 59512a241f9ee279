"""The training stages: SFT on the beams, then RCE and GRPO on the balanced candidates; each writes a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from leverplus_core.checkpoint import load_selector, save_selector
from leverplus_core.errors import DataError
from leverplus_core.files import read_jsonl, write_jsonl
from leverplus_core.parts import Reward
from leverplus_core.progress import Progress
from leverplus_core.records import Candidate
from leverplus_core.records import Sequence as Kept
from leverplus_core.seeding import derive, rng
from leverplus_core.selector import Selector, SelectorSettings
from leverplus_core.table import SelectorTable
from leverplus_core.training import grpo as grpo_
from leverplus_core.training import rce as rce_
from leverplus_core.training import sft as sft_
from leverplus_core.training.loop import CurveRow, FitResult, Groups, TrainingData
from leverplus_core.training.settings import GrpoSettings, RceSettings, SftSettings

CURVE, STATE = "curve.jsonl", "fit-state.pt"


def held_out_ids(ids: Sequence[str], share: float, seed: int) -> set[str]:
    """The train questions that choose the epoch: the same for every stage, whatever a balancer drops."""
    return {i for i in ids if rng(seed, "held out", i).random() < share}


def training_data(
    table: SelectorTable,
    rows: Mapping[str, Sequence[tuple[Sequence[str], float]]],
    correct: Mapping[str, Sequence[bool]] | None = None,
) -> TrainingData:
    """Pad each question's (demonstration ids, reward) rows into tensors; labels are positions in the question's pool.

    Raises DataError for a sequence with a demonstration that is not in the question's pool.
    """
    ids = list(rows)
    count = max((len(rows[q]) for q in ids), default=1)
    longest = max((len(sequence) for q in ids for sequence, _ in rows[q]), default=1)
    sequences = torch.full((len(ids), count, longest), -1)
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
            sequences[i, j, : len(sequence)] = torch.tensor([place[d] for d in sequence])
            mask[i, j], rewards[i, j] = True, reward
    varies = None if correct is None else torch.tensor([len(set(correct[q])) > 1 for q in ids], dtype=torch.bool)
    return TrainingData(Groups(sequences, mask, rewards, varies), lambda index: table.batch([ids[i] for i in index]))


def sft(
    out: Path,
    table: SelectorTable,
    beams: Mapping[str, Sequence[Kept]],
    architecture: SelectorSettings,
    settings: SftSettings,
    held_out: float,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Train a new selector on the sequences that the beam search kept."""
    rows = {q: [(k.demonstrations, k.score) for k in kept] for q, kept in beams.items()}
    apart = held_out_ids(list(rows), held_out, seed)
    data, judge = _split(table, rows, apart)
    torch.manual_seed(derive(seed, "selector"))
    selector = Selector(architecture, table.query.shape[1], table.bank.shape[1])
    selector.fit_standardiser(table.query[[table.row[q] for q in rows if q not in apart]], table.bank)
    how = {"seed": seed, "checkpoint_path": out / STATE, "progress": progress}
    return _save(out, selector, sft_.train(selector, data, judge, settings, **how))


def rce(
    out: Path,
    table: SelectorTable,
    groups: Mapping[str, Sequence[Candidate]],
    start: Path,
    reward: Reward,
    settings: RceSettings,
    held_out: float,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Go on from the selector in `start` with reward-weighted cross-entropy."""
    selector, data, judge = _from_candidates(table, groups, start, reward, held_out, seed)
    how = {"seed": seed, "checkpoint_path": out / STATE, "progress": progress}
    return _save(out, selector, rce_.train(selector, data, judge, settings, **how))


def grpo(
    out: Path,
    table: SelectorTable,
    groups: Mapping[str, Sequence[Candidate]],
    start: Path,
    reward: Reward,
    settings: GrpoSettings,
    held_out: float,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Go on from the selector in `start` with GRPO.

    Where no question has both a correct and a wrong candidate there is nothing to learn: the selector stays as it is.
    """
    selector, data, judge = _from_candidates(table, groups, start, reward, held_out, seed)
    if data.groups.varies is None or not data.groups.varies.any():
        progress.say("grpo: no question has both a correct and a wrong candidate; the selector stays as it is")
        return _save(out, selector, FitResult(0, []))
    how = {"seed": seed, "checkpoint_path": out / STATE, "progress": progress}
    return _save(out, selector, grpo_.train(selector, data, judge, settings, **how))


def _from_candidates(
    table: SelectorTable,
    groups: Mapping[str, Sequence[Candidate]],
    start: Path,
    reward: Reward,
    held_out: float,
    seed: int,
) -> tuple[Selector, TrainingData, TrainingData | None]:
    rows = {
        q: list(zip([c.demonstrations for c in group], reward.of(group), strict=True)) for q, group in groups.items()
    }
    correct = {q: [c.correct for c in group] for q, group in groups.items()}
    selector, _ = load_selector(start)
    data, judge = _split(table, rows, held_out_ids(list(rows), held_out, seed), correct)
    return selector, data, judge


def _split(
    table: SelectorTable,
    rows: Mapping[str, Sequence[tuple[Sequence[str], float]]],
    apart: set[str],
    correct: Mapping[str, Sequence[bool]] | None = None,
) -> tuple[TrainingData, TrainingData | None]:
    taught = {q: r for q, r in rows.items() if q not in apart}
    judging = {q: r for q, r in rows.items() if q in apart}
    return training_data(table, taught, correct), training_data(table, judging, correct) if judging else None


def _save(out: Path, selector: Selector, result: FitResult) -> dict[str, Any]:
    write_jsonl(out / CURVE, ({"step": step, **values} for step, values in result.curve))
    save_selector(out, selector, {"best_epoch": result.best_epoch})
    (out / STATE).unlink(missing_ok=True)
    return {"best_epoch": result.best_epoch}


def read_curve(folder: Path) -> list[CurveRow]:
    """(epoch, metrics) of a training stage."""
    return [(int(row.pop("step")), row) for row in read_jsonl(folder / CURVE)]
