"""What the trackers have in common: which event becomes what, and what a resumed run has sent already."""

from __future__ import annotations

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from leverplus_core import (
    LeverplusError,
    LeverplusWarning,
    PluginError,
    Prediction,
    Registry,
    RunInfo,
    atomic_write,
    hookimpl,
    read_json,
    report_file,
)

COLUMNS = ("method", "shots", "n", "accuracy", "low", "high")
"""Of the leaderboard: accuracies and the ends of their 95% intervals, in [0, 1]."""
DONE = "done"
"""The status of a run that has all its results."""


class RunTracker(ABC):
    """A run in another program's store. Subclasses open it, write to it and close it.

    Curves are metrics `STAGE/NAME` with the epoch as their step. Results are metrics without a step:
    `accuracy/METHOD/K-shot` over the largest sample, with ` low` and ` high`, the ends of its 95% interval;
    `seconds/STAGE` and `prompts/STAGE`. The leaderboard is a table of all cells, the HTML report a file.

    A run that is resumed tells its curves again. What of them was sent stands in a file of its folder of artifacts,
    WORK/trackers/NAME-RUN.json, which counts for one tracked run in one place only.

    After the first failure nothing more is sent: each further attempt could take as long as the first one.
    """

    name: ClassVar[str]
    title: ClassVar[str]

    where: str

    def __init__(self, run: RunInfo, registry: Registry) -> None:
        self._run, self._registry = run, registry
        self._failed = False
        self._fingerprint, self._largest = "", 0
        self._cells: list[tuple[str, int, int, float, float, float]] = []
        place, new = self._open(flat(run.recipe))
        self._file = Path(run.work) / "trackers" / f"{self.name}-{run.id}.json"
        self._place, self._sent = place, set[str]()
        if not new and self._file.is_file():
            kept = read_json(self._file)
            self._sent = set(kept["sent"]) if kept.get("place") == place else set()

    @abstractmethod
    def _open(self, settings: Mapping[str, Any]) -> tuple[str, bool]:
        """Open the tracked run, and set `where`; returns what identifies it and its place, and whether it is new.

        Raises LeverplusError where that cannot be.
        """

    @abstractmethod
    def _curve(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Metrics of an epoch of a stage."""

    @abstractmethod
    def _results(self, values: Mapping[str, float]) -> None:
        """Metrics without a step; a value that is there already is replaced."""

    @abstractmethod
    def _table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; one of this name that is there already is replaced."""

    @abstractmethod
    def _artifact(self, file: Path) -> None:
        """A file of the run, under its own name."""

    @abstractmethod
    def _close(self, status: str) -> None:
        """The run ends: `done`, `partial`, `stopped` or `failed`."""

    @hookimpl
    def leverplus_stage_start(self, stage: str, fingerprint: str) -> None:
        """Remember which result of the stage its curve belongs to."""
        del stage
        self._fingerprint = fingerprint

    @hookimpl
    def leverplus_epoch_end(self, stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Send a point of each curve, unless it was sent before."""
        points = {f"{stage} {self._fingerprint} {epoch} {key}": key for key in metrics}
        left = {point: key for point, key in points.items() if point not in self._sent}
        if not left:
            return
        self._send(self._curve, stage, epoch, {f"{stage}/{key}": metrics[key] for key in left.values()})
        if not self._failed:
            self._sent |= set(left)
            with atomic_write(self._file) as f:
                f.write(json.dumps({"place": self._place, "sent": sorted(self._sent)}, indent=1).encode())

    @hookimpl
    def leverplus_predictions(self, predictions: Sequence[tuple[int, Prediction]], sizes: Sequence[int]) -> None:
        """Remember which sample is the largest."""
        del predictions
        self._largest = max(sizes, default=0)

    @hookimpl
    def leverplus_cell_end(
        self, method: str, shots: int, n: int, accuracy: float, interval: tuple[float, float]
    ) -> None:
        """Keep a cell for the leaderboard; send that of the largest sample."""
        low, high = interval
        self._cells.append((method, shots, n, accuracy, low, high))
        if n == self._largest:
            key = f"accuracy/{method}/{shots}-shot"
            self._send(self._results, {key: accuracy, f"{key} low": low, f"{key} high": high})

    @hookimpl
    def leverplus_stage_end(self, stage: str, metadata: Mapping[str, Any]) -> None:
        """Send what the stage cost: of all attempts at it, whichever run made them."""
        cost = metadata.get("cost", {})
        if known := {f"{key}/{stage}": cost[key] for key in ("seconds", "prompts") if key in cost}:
            self._send(self._results, known)

    @hookimpl
    def leverplus_run_end(self, status: str) -> None:
        """Send the leaderboard, and of a run that is done the report, and close."""
        try:
            if self._cells:
                self._send(self._table, "leaderboard", COLUMNS, self._cells)
            if self._cells and status == DONE:
                self._report()
        finally:
            self._send(self._close, status)

    def _report(self) -> None:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "report.html"
            try:
                report_file(self._registry, [self._run.id], file)
            except LeverplusError as error:  # the packages of a report are another extra
                warnings.warn(f"{self.title} gets no report: {error}", LeverplusWarning, stacklevel=2)
                return
            self._send(self._artifact, file)

    def _send(self, how: Callable[..., None], *what: Any) -> None:
        """Raises PluginError, from what the package raised, for the first failure; does nothing after it."""
        if self._failed:
            return
        try:
            how(*what)
        except Exception as error:
            self._failed = True
            raise PluginError(f"{self.title}: {type(error).__name__}: {error}; nothing more is sent to it.") from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A recipe's values with dotted keys; a list is one value, as JSON, unless it is of parts: `stages.0.name`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            found |= flat({str(i): one for i, one in enumerate(value)}, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list | Mapping) else value
    return found
