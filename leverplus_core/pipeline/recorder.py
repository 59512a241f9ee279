"""The listener that writes a run into the registry."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stage import METHOD_PROMPTS
from leverplus_core.plugins.hookspecs import hookimpl
from leverplus_core.provenance import describe_environment, describe_git
from leverplus_core.records import Demonstration, Prediction, Question, RunInfo
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.registry.tables import NOT_TRAINED, UNTRAINED

CURVE_S = 2.0
"""A curve is written so often while its stage runs, and once more at its end."""


@dataclass(frozen=True)
class Membership:
    """The sweep that a run belongs to, and the settings by which its arm differs from the others."""

    sweep: str
    arm: Mapping[str, str]


def run_record(
    run_id: str, context: RunContext, sweep: Membership | None, planned: Sequence[str] | None = None
) -> RunRecord:
    """What the registry keeps of a run from its beginning; `planned` are the names of its stages."""
    recipe, offline = context.recipe, context.offline
    path = recipe.model.settings.get("path")
    return RunRecord(
        id=run_id,
        name=recipe.name,
        fingerprint=recipe.fingerprint(),
        dataset="imported" if offline else recipe.dataset.name,
        model="none" if offline else f"{recipe.model.name}:{path}" if path else recipe.model.name,
        seed=recipe.seed,
        recipe=context.described(),
        parts=context.provenance(),
        environment=describe_environment(),
        git=describe_git(),
        note=" ".join(filter(None, (recipe.note, "" if offline else context.dataset.note()))),
        dataset_fingerprint=context.dataset_fingerprint,
        sweep=sweep.sweep if sweep else None,
        arm=sweep.arm if sweep else None,
        planned=planned,
    )


class Recorder:
    """Writes what it hears of one run; an error of the registry ends the run.

    `evaluation` gives the fingerprint of the run's evaluation, None where it has none: it changes where a training is
    left out.
    """

    def __init__(self, registry: Registry, record: RunRecord, evaluation: Callable[[], str | None]) -> None:
        self._registry, self._record, self._evaluation = registry, record, evaluation
        self._curve: list[tuple[int, dict[str, float]]] = []
        self._curve_at = 0.0

    @hookimpl
    def leverplus_run_start(self, run: RunInfo) -> None:
        self._registry.begin_run(self._record)
        if self._registry.evaluated_as(run.id) not in (None, self._evaluation()):
            # The recipe, and so the run, is the same where a part's code or a file that it names is another: its cells
            # are then stale, wherever this call ends. The folder of the earlier evaluation still has them.
            self._registry.forget_evaluation(run.id)

    @hookimpl
    def leverplus_stage_start(self, run: RunInfo, stage: str, fingerprint: str, path: str) -> None:
        self._curve, self._curve_at = [], time.monotonic()
        self._registry.record_stage(run.id, stage, fingerprint, "running", 0.0, path, reused=False)

    @hookimpl
    def leverplus_epoch_end(self, run: RunInfo, stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        self._curve.append((epoch, dict(metrics)))
        if time.monotonic() - self._curve_at > CURVE_S:
            self._registry.record_curve(run.id, stage, self._curve)
            self._curve_at = time.monotonic()

    @hookimpl
    def leverplus_validation_questions(self, run: RunInfo, stage: str, ids: Sequence[str]) -> None:
        self._registry.record_validation_questions(run.id, stage, ids)

    @hookimpl
    def leverplus_evaluation(
        self, run: RunInfo, split: str, questions: Sequence[Question], methods: Sequence[str], reused: bool
    ) -> None:
        self._registry.record_evaluation(
            run.id, self._evaluation() or "", split, [(q.id, q.image.id) for q in questions], methods, taken_over=reused
        )

    @hookimpl
    def leverplus_questions(
        self, run: RunInfo, questions: Sequence[Question], demonstrations: Sequence[Demonstration]
    ) -> None:
        self._registry.record_questions(run.id, questions, demonstrations)

    @hookimpl
    def leverplus_predictions(
        self,
        run: RunInfo,
        method: str,
        shots: int,
        predictions: Sequence[tuple[int, Prediction]],
        sizes: Sequence[int],
    ) -> None:
        self._registry.record_cell_predictions(run.id, method, shots, predictions, sizes)

    @hookimpl
    def leverplus_stage_end(self, run: RunInfo, stage: str, metadata: Mapping[str, Any], reused: bool) -> None:
        kept = {k: v for k, v in metadata.items() if k not in ("fingerprint", "path", "seconds")}
        status = NOT_TRAINED if UNTRAINED in kept else "done"
        self._registry.record_stage(
            run.id, stage, metadata["fingerprint"], status, metadata["seconds"], metadata["path"], reused=reused,
            metadata=kept,
        )  # fmt: skip
        if METHOD_PROMPTS in kept:
            self._registry.record_methods(run.id, kept[METHOD_PROMPTS])
        if self._curve:
            self._registry.record_curve(run.id, stage, self._curve)

    @hookimpl
    def leverplus_run_end(self, run: RunInfo, status: str) -> None:
        self._registry.finish_run(run.id, status)
