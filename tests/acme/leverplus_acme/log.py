"""A listener: writes every event of a run to WORK/acme.jsonl."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from leverplus_core import RunInfo, hookimpl


def _write(run: RunInfo, **event: object) -> None:
    folder = Path(run.work)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "acme.jsonl").open("a", encoding="utf-8") as f:
        f.write(json.dumps({"run": run.id, **event}) + "\n")


@hookimpl
def leverplus_run_start(run: RunInfo) -> None:
    _write(run, event="run_start", name=run.name)


@hookimpl
def leverplus_stage_end(run: RunInfo, stage: str, reused: bool) -> None:
    _write(run, event="stage_end", stage=stage, reused=reused)


@hookimpl
def leverplus_epoch_end(run: RunInfo, stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
    _write(run, event="epoch_end", stage=stage, epoch=epoch, metrics=sorted(metrics))


@hookimpl
def leverplus_cell_end(run: RunInfo, method: str, shots: int, n: int, accuracy: float) -> None:
    _write(run, event="cell_end", method=method, shots=shots, n=n, accuracy=accuracy)


@hookimpl
def leverplus_run_end(run: RunInfo, status: str) -> None:
    _write(run, event="run_end", status=status)
