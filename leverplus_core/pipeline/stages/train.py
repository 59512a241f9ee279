"""A training of the selector: one stage for each trainer, named as the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from leverplus_core.candidates.store import BALANCED, CANDIDATES, read_candidates, read_groups
from leverplus_core.io import read_json
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.folds import WHOLE
from leverplus_core.pipeline.judging import judge_cost, judge_identity, judge_of
from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
from leverplus_core.pipeline.stages.balance import METADATA, NOTHING_LEFT
from leverplus_core.pipeline.stages.beam_search import read_sequences


class Train(Stage):
    """Train the selector with one trainer, continuing from the policy of the trainer before it, or that it names.

    With cross-fitting the folder holds a folder per fold, each with the policy of that fold.
    """

    provides: ClassVar[str] = "policy"

    def enabled(self, context: RunContext) -> bool:
        return context.trains(self.name)

    def reads(self, context: RunContext) -> Sequence[str]:
        # Candidates before balancing: those that it dropped may be validation questions all the same.
        read = {"sequences": ("sequences",), "candidates": ("groups", "candidates")}
        learned_from = read[context.trainers[self.name].learns_from]
        return ("features", "pools", *learned_from, self._start(context))

    def depends(self, context: RunContext) -> object:
        trainer = context.trainers[self.name]
        reward = context.identity("reward") if trainer.learns_from == "candidates" else None
        of = context.identity_of("trainer", self.name, trainer)
        return [context.training_identity(), of, reward, judge_identity(context)]

    def lacks(self, context: RunContext, inputs: Mapping[str, Path]) -> str:
        return "" if context.trainers[self.name].learns_from == "sequences" else without_groups(inputs)

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        trained = {fold: self._train(context, inputs, out / fold, fold, report) for fold in context.folds.names}
        return {"folds": trained} if context.folds.crossed else trained[WHOLE]

    def replay(self, context: RunContext, out: Path, report: StageReport) -> None:
        for fold in context.folds.names:
            replay_training(out / fold, report, fold)

    def cost(self, planning: Planning) -> StageCost:
        trainer = planning.context.trainers[self.name]
        questions = planning.sets.searched if trainer.learns_from == "sequences" else planning.sets.proposed
        return judge_cost(planning, questions, trainer.epochs)

    def _start(self, context: RunContext) -> str:
        """The content that holds the policy to continue from."""
        start = context.start_of(self.name)
        return "policy" if start is None else f"@{start}"

    def _train(
        self, context: RunContext, inputs: Mapping[str, Path], out: Path, fold: str, report: StageReport
    ) -> dict[str, Any]:
        """Train the policy of `fold` into the folder `out`, unless it is there; the metadata of its training."""
        from leverplus_core.training.data import train, trained_metadata

        if fold != WHOLE and (metadata := trained_metadata(out)) is not None:
            replay_training(out, report, fold)
            return metadata
        trainer, training = context.trainers[self.name], context.training(inputs, fold)
        from_sequences, lessons = trainer.learns_from == "sequences", context.folds.lessons
        learned_from: Mapping[str, Any]
        known: Mapping[str, Any]
        if from_sequences:
            learned_from = known = lessons(fold, read_sequences(inputs["sequences"]), training.features.row)
        else:
            learned_from = lessons(fold, read_groups(inputs["groups"] / BALANCED), training.features.row)
            known = lessons(fold, read_groups(inputs["candidates"] / CANDIDATES), training.features.row)
        start = inputs.get(self._start(context))
        metadata = train(
            out,
            training,
            self.name,
            trainer,
            learned_from,
            None if from_sequences else context.reward,
            None if start is None else start / fold,
            judge_of(context, training, trainer, known),
            list(known),
            lambda epoch, metrics: report.epoch(epoch, _of_fold(metrics, fold)),
        )
        if fold == WHOLE:
            report.validation_questions(read_validation(out))
        return metadata


def without_groups(inputs: Mapping[str, Path]) -> str:
    """Why no candidate teaches: '' where some do."""
    if next(read_candidates(inputs["groups"] / BALANCED), None) is not None:
        return ""
    file = inputs["groups"] / METADATA
    found = read_json(file).get(NOTHING_LEFT) if file.exists() else None
    return str(found or "no candidate was selected that it could learn from")


def read_validation(folder: Path) -> list[str]:
    """The questions that chose the epoch of the policy in `folder`."""
    from leverplus_core.selector.checkpoint import read_meta
    from leverplus_core.training.data import VALIDATION_QUESTIONS

    return list(read_meta(folder).get(VALIDATION_QUESTIONS, ()))


def replay_training(out: Path, report: StageReport, fold: str = WHOLE) -> None:
    """Report the curve of the policy in `out`, and the validation questions.

    With cross-fitting the questions that chose the epoch of one policy are answered by another, so none are reported.
    """
    from leverplus_core.training.data import read_curve

    for epoch, metrics in read_curve(out):
        report.epoch(epoch, _of_fold(metrics, fold))
    if fold == WHOLE:
        report.validation_questions(read_validation(out))


def _of_fold(metrics: Mapping[str, float], fold: str) -> dict[str, float]:
    return {f"{fold} {name}" if fold != WHOLE else name: value for name, value in metrics.items()}
