"""Trainings that changed nothing: they chose epoch 0, the policy as it came, or had nothing to learn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leverplus_core.registry.registry import Registry
from leverplus_core.registry.tables import NOT_TRAINED, UNTRAINED
from leverplus_core.report.methods import Row


def unchanged_policies(registry: Registry, runs: Sequence[str]) -> list[Row]:
    """For each trained stage of `runs` (ids; the seeds of one arm) that chose epoch 0 in any of them: method, start
    (the stage whose policy it is then equal to; None for one before any training), epochs, runs (how many chose it)
    and of (how many trained it)."""
    trained: dict[str, list[Mapping[str, Any]]] = {}
    for run_id in runs:
        for row in registry.stages(run_id):
            if "epochs" in (row["metadata"] or {}):
                trained.setdefault(row["name"], []).append(row["metadata"])
    return [
        {"method": name, "start": some[0]["start"], "epochs": some[0]["epochs"], "runs": len(some), "of": len(every)}
        for name, every in trained.items()
        if (some := [metadata for metadata in every if chose_start(metadata)])
    ]


def chose_start(metadata: Mapping[str, Any]) -> bool:
    """Whether what a training stage says of itself has epoch 0 as the one chosen, in all folds where there are any."""
    folds: Iterable[Mapping[str, Any]] = metadata["folds"].values() if "folds" in metadata else [metadata]
    return all(fold.get("chosen_epoch") == 0 for fold in folds)


def untrained_methods(registry: Registry, runs: Sequence[str]) -> list[Row]:
    """For each training of `runs` that was left out because it had nothing to learn from: method, reason (of the first
    of them), runs (how many left it out) and of (how many runs there are)."""
    left: dict[str, list[str]] = {}
    for run_id in runs:
        for row in registry.stages(run_id):
            if row["status"] == NOT_TRAINED:
                left.setdefault(row["name"], []).append(str(row["metadata"][UNTRAINED]))
    return [{"method": name, "reason": why[0], "runs": len(why), "of": len(runs)} for name, why in left.items()]


def untrained_text(rows: Sequence[Row]) -> str:
    """`not trained: rce, grpo (the balancer dropped all 100 questions ...)`, for rows of one reason or several."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        seeds = f" (in {row['runs']} of {row['of']} seeds)" if row["of"] > 1 else ""
        by_reason.setdefault(row["reason"], []).append(f"{row['method']}{seeds}")
    return "; ".join(f"not trained: {', '.join(names)}: {why}" for why, names in by_reason.items())


def unchanged_text(row: Row) -> str:
    """`mrt: epoch 0 of 10 was chosen, the same policy as sft`."""
    same = f"the same policy as {row['start']}" if row["start"] else "a policy before any training"
    seeds = f" (in {row['runs']} of {row['of']} seeds)" if row["of"] > 1 else ""
    return f"{row['method']}: epoch 0 of {row['epochs']} was chosen, {same}{seeds}"
