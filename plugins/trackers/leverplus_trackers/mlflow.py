"""Runs in MLflow: a local file, a folder or a server, as MLFLOW_TRACKING_URI says."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leverplus_core import LeverplusError, ServerError, needs_extra
from leverplus_trackers.base import RunTracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

with needs_extra("mlflow"):
    import mlflow

RUN_TAG = "leverplus.run"
"""The tag by which the tracked run of a run is found again."""
STATUS_TAG = "leverplus.status"
_STATUS = {"done": "FINISHED", "partial": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""MLflow's own would keep a run waiting for minutes, per call, for a server that is gone."""
_PARAMS = 100
"""Of one call, as MLflow bounds it."""


class MlflowTracker(RunTracker):
    """A run in the experiment MLFLOW_EXPERIMENT_NAME (or _ID), `leverplus` by default.

    The tag `leverplus.run` is the run's id: a resumed run goes on in the tracked run that has it. MLflow's client is
    used, so that a notebook's active run stays what it is.
    """

    name, title = "mlflow", "MLflow"

    def _open(self, settings: Mapping[str, Any]) -> tuple[str, bool]:
        for variable, value in _PATIENCE.items():
            os.environ.setdefault(variable, value)
        logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of each step in making a new database
        logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # so does it, and traces what it raises as well
        address = _public(mlflow.get_tracking_uri())
        try:
            with needs_extra("mlflow"):
                self._client: MlflowClient = mlflow.MlflowClient()
                tracked, new = self._find()
        except LeverplusError:
            raise
        except Exception as error:
            reason = _public(f"{type(error).__name__}: {error}")
            raise ServerError(
                f"MLflow at {address} cannot be used: {reason}.", "MLFLOW_TRACKING_URI says where it is."
            ) from error
        self._id, known = tracked.info.run_id, tracked.data.params
        self.where = f"MLflow at {address}, run {self._id}"
        self._client.update_run(self._id, status="RUNNING", name=self._run.name)
        left = [(key, str(value)) for key, value in settings.items() if _key(key) not in known]  # params cannot change
        for start in range(0, len(left), _PARAMS):
            part = left[start : start + _PARAMS]
            self._client.log_batch(self._id, params=[mlflow.entities.Param(_key(k), v[:6000]) for k, v in part])
        return f"{address} {self._id}", new

    def _find(self) -> tuple[Run, bool]:
        """The tracked run of this run, and whether it is new."""
        wanted = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if not wanted:
            title = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "leverplus"
            there = self._client.get_experiment_by_name(title)
            wanted = self._client.create_experiment(title) if there is None else there.experiment_id
        tracked = self._client.search_runs([wanted], f"tags.`{RUN_TAG}` = '{self._run.id}'", max_results=1)
        if tracked:
            return tracked[0], False
        return self._client.create_run(wanted, tags={RUN_TAG: self._run.id}, run_name=self._run.name), True

    def _curve(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        self._log(values, epoch)

    def _results(self, values: Mapping[str, float]) -> None:
        known = self._client.get_run(self._id).data.metrics  # of an earlier call: a value again would be another point
        self._log({key: value for key, value in values.items() if known.get(_key(key)) != value}, 0)

    def _log(self, values: Mapping[str, float], step: int) -> None:
        now = round(1000 * time.time())
        metrics = [mlflow.entities.Metric(_key(key), value, now, step) for key, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def _table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        # As `MlflowClient.log_table` writes it, which would append to the table of an earlier call.
        self._client.log_dict(self._id, {"columns": list(columns), "data": [list(row) for row in rows]}, f"{name}.json")
        tables = json.dumps([{"path": f"{name}.json", "type": "table"}])
        self._client.set_tag(self._id, "mlflow.loggedArtifacts", tables)

    def _artifact(self, file: Path) -> None:
        self._client.log_artifact(self._id, str(file))

    def _close(self, status: str) -> None:
        self._client.set_tag(self._id, STATUS_TAG, status)
        self._client.set_terminated(self._id, _STATUS[status])


def _public(text: str) -> str:
    """Addresses without their user and password."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def _key(name: str) -> str:
    """A name with what MLflow's may hold."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
