"""Every hook of leverplus: one for each kind of part, and the events of a run.

A hook of parts returns {name: "module:Class"}, so that listing parts imports none of them. An event is told to every
plugin that has a function of its name; what such a function returns is ignored, and it may leave out arguments that it
does not read. Hooks grow by keyword arguments only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from leverplus_core.records import Demonstration, Prediction, Question, RunInfo

PROJECT = "leverplus"

API = "1"
"""The version of what plugins are written against: the hooks, the contracts and the public names of `leverplus_core`.

A plugin's module may state the one that it was written for, `leverplus_api = "1"`. It is raised where a plugin that
kept to the public names would break, and never for what is only added.
"""

hookspec = pluggy.HookspecMarker(PROJECT)


hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of its name."""


@hookspec
def leverplus_datasets() -> dict[str, str]:  # type: ignore[empty-body]
    """Datasets: name -> "module:Class" of a `leverplus_core.Dataset`."""


@hookspec
def leverplus_models() -> dict[str, str]:  # type: ignore[empty-body]
    """Vision-language models: name -> "module:Class" of a `leverplus_core.Model`."""


@hookspec
def leverplus_encoders() -> dict[str, str]:  # type: ignore[empty-body]
    """Encoders: name -> "module:Class" of a `leverplus_core.Encoder`."""


@hookspec
def leverplus_samplers() -> dict[str, str]:  # type: ignore[empty-body]
    """Samplers: name -> "module:Class" of a `leverplus_core.Sampler`."""


@hookspec
def leverplus_selectors() -> dict[str, str]:  # type: ignore[empty-body]
    """Selectors, trainable ones and baselines: name -> "module:Class" of a `leverplus_core.Selector`."""


@hookspec
def leverplus_balancers() -> dict[str, str]:  # type: ignore[empty-body]
    """Balancers: name -> "module:Class" of a `leverplus_core.Balancer`."""


@hookspec
def leverplus_rewards() -> dict[str, str]:  # type: ignore[empty-body]
    """Rewards: name -> "module:Class" of a `leverplus_core.Reward`."""


@hookspec
def leverplus_trainers() -> dict[str, str]:  # type: ignore[empty-body]
    """Trainers: name -> "module:Class" of a `leverplus_core.Trainer`."""


@hookspec
def leverplus_importers() -> dict[str, str]:  # type: ignore[empty-body]
    """Importers of files that others wrote: name -> "module:Class" of a `leverplus_core.Importer`."""


@hookspec
def leverplus_exporters() -> dict[str, str]:  # type: ignore[empty-body]
    """Exporters to files that others read: name -> "module:Class" of a `leverplus_core.Exporter`."""


@hookspec
def leverplus_stages() -> dict[str, str]:  # type: ignore[empty-body]
    """Stages that a recipe may add: name -> "module:Class" of a `leverplus_core.Stage`."""


@hookspec
def leverplus_run_start(run: RunInfo) -> None:
    """A run starts or is resumed; it is in the registry already."""


@hookspec
def leverplus_stage_start(run: RunInfo, stage: str, fingerprint: str, path: str) -> None:
    """A stage starts, or its result is about to be reused; `path` is its folder."""


@hookspec
def leverplus_stage_end(run: RunInfo, stage: str, metadata: Mapping[str, Any], reused: bool) -> None:
    """A stage is finished: its `metadata` as the registry keeps it; `reused` says that an earlier run had made it."""


@hookspec
def leverplus_epoch_end(run: RunInfo, stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
    """A training epoch of `stage` is finished: its losses and, where it was computed, the validation score."""


@hookspec
def leverplus_validation_questions(run: RunInfo, stage: str, ids: Sequence[str]) -> None:
    """The questions that chose the epoch of the policy of `stage`."""


@hookspec
def leverplus_evaluation(
    run: RunInfo, split: str, questions: Sequence[Question], methods: Sequence[str], reused: bool
) -> None:
    """Evaluation questions of a split (`validation`, `held_out`, `cross_fit`) are about to be answered by all methods;
    `reused` says that their answers are there already."""


@hookspec
def leverplus_questions(run: RunInfo, questions: Sequence[Question], demonstrations: Sequence[Demonstration]) -> None:
    """What the ids in the predictions that follow stand for."""


@hookspec
def leverplus_predictions(
    run: RunInfo, method: str, shots: int, predictions: Sequence[tuple[int, Prediction]], sizes: Sequence[int]
) -> None:
    """All answers of (method, shots) as (position in the evaluation order, prediction); `sizes` are the samples."""


@hookspec
def leverplus_cell_end(
    run: RunInfo, method: str, shots: int, n: int, accuracy: float, interval: tuple[float, float]
) -> None:
    """A cell of the evaluation grid is filled: accuracy over `n` questions in [0, 1], and its 95% interval."""


@hookspec
def leverplus_run_end(run: RunInfo, status: str) -> None:
    """A call of `run` ends: `done`, `partial` (after the stage of `until`), `stopped` (by the user) or `failed`."""
