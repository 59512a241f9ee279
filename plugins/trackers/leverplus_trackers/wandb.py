"""Runs in Weights & Biases: online, or offline as WANDB_MODE says."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leverplus_core import ServerError, needs_extra
from leverplus_trackers.base import RunTracker

with needs_extra("wandb"):
    import wandb

_PATIENCE = 30.0
"""Seconds that the start waits for the server, unless WANDB_INIT_TIMEOUT says another number; W&B's own are 90."""


class WandbTracker(RunTracker):
    """A run of the project WANDB_PROJECT, `leverplus` by default, under the run's own id.

    A resumed run goes on in it; offline, `wandb sync` brings the parts together. Results are in the run's summary. W&B
    does not listen to the terminal: the run's progress bars stay out of its log.
    """

    name, title = "wandb", "W&B"

    def _open(self, settings: Mapping[str, Any]) -> tuple[str, bool]:
        options: dict[str, Any] = {"console": "off", "silent": True}
        if "WANDB_INIT_TIMEOUT" not in os.environ:
            options["init_timeout"] = _PATIENCE
        ends = sys.exit, sys.excepthook
        try:
            self._tracked = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or "leverplus",
                id=self._run.id,
                name=self._run.name,
                resume="allow",
                reinit="create_new",
                config=dict(settings),
                allow_val_change=True,  # of what decides no result: the name, the threads
                settings=wandb.Settings(**options),
            )
        except Exception as error:
            raise ServerError(
                f"W&B cannot be used: {error}.", "Run `wandb login`, or set WANDB_MODE=offline for no server."
            ) from error
        finally:
            sys.exit, sys.excepthook = ends  # W&B takes their place to learn how a process ends; `_close` tells it
        tracked, self._stages = self._tracked, set[str]()
        if tracked.offline:
            self.where = f"W&B offline, {Path(tracked.dir).parent} (`wandb sync` sends it)"
        else:
            self.where = f"W&B, {tracked.url}"
        # What was sent offline is not known to be there, nor to be lost: it is not sent twice.
        return f"{tracked.entity}/{tracked.project}/{tracked.id}", not (tracked.offline or tracked.resumed)

    def _curve(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        step = f"{stage}/epoch"
        if stage not in self._stages:
            self._stages.add(stage)
            self._tracked.define_metric(f"{stage}/*", step_metric=step)
        self._tracked.log({**values, step: epoch})

    def _results(self, values: Mapping[str, float]) -> None:
        self._tracked.summary.update(dict(values))

    def _table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._tracked.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def _artifact(self, file: Path) -> None:
        artifact = wandb.Artifact(f"report-{self._run.id}", type="report")
        artifact.add_file(str(file), policy="mutable")
        self._tracked.log_artifact(artifact)

    def _close(self, status: str) -> None:
        self._tracked.summary["status"] = status
        self._tracked.finish(exit_code=0 if status in ("done", "partial") else 1)
