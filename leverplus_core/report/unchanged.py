"""Policies that a training left as they were: the epoch that was chosen is 0, the policy before the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leverplus_core.registry.registry import Registry
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


def unchanged_text(row: Row) -> str:
    """`mrt: epoch 0 of 10 was chosen, the same policy as sft`."""
    same = f"the same policy as {row['start']}" if row["start"] else "a policy before any training"
    seeds = f" (in {row['runs']} of {row['of']} seeds)" if row["of"] > 1 else ""
    return f"{row['method']}: epoch 0 of {row['epochs']} was chosen, {same}{seeds}"
