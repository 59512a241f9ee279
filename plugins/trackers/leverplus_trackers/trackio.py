"""Runs in trackio: on this machine, on a Space of the Hugging Face hub, or on a server of one's own."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from leverplus_core import ServerError, needs_extra
from leverplus_trackers.base import RunTracker

with needs_extra("trackio"):
    import trackio


class TrackioTracker(RunTracker):
    """A run of the project TRACKIO_PROJECT, `leverplus` by default, named after the run and its id.

    TRACKIO_DIR, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL count as in trackio itself. A server that is gone keeps nobody
    waiting: trackio keeps the rows on this machine and sends them later.
    """

    name, title = "trackio", "trackio"

    def _open(self, settings: Mapping[str, Any]) -> tuple[str, bool]:
        project, name = os.environ.get("TRACKIO_PROJECT") or "leverplus", f"{self._run.name} {self._run.id}"
        told = io.StringIO()
        try:
            with redirect_stdout(told):
                self._tracked = trackio.init(
                    project=project,
                    name=name,
                    resume="allow",
                    config=dict(settings),
                    embed=False,
                    auto_log_gpu=False,
                    auto_log_cpu=False,
                )
        except Exception as error:
            raise ServerError(f"trackio cannot be used: {error}.", "It reads TRACKIO_SPACE_ID and _DIR.") from error
        self.where = f"trackio, run '{name}' (`trackio show --project {project}` shows it)"
        return f"{project}/{self._tracked.id}", "Resumed" not in told.getvalue()

    def _curve(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        self._tracked.log({**values, f"{stage}/epoch": epoch}, step=epoch)

    def _results(self, values: Mapping[str, float]) -> None:
        self._tracked.log(dict(values), step=0)

    def _table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        table = trackio.Table(columns=list(columns), data=[list(row) for row in rows])
        self._tracked.log({name: table}, step=0)

    def _artifact(self, file: Path) -> None:
        with redirect_stdout(io.StringIO()):
            self._tracked.log_artifact(file, name=f"report-{self._run.id}", type="report")

    def _close(self, status: str) -> None:
        with redirect_stdout(io.StringIO()):
            self._tracked.log({"status": status}, step=0)
            trackio.finish()  # not the run's own: that one would be finished again, and say so, as the process ends
