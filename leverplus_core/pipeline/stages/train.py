"""A training of the selector: one stage for each trainer, named as the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from leverplus_core.candidates.store import BALANCED, read_groups
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stage import Stage, StageReport
from leverplus_core.pipeline.stages.beam_search import read_sequences


class Train(Stage):
    """Train the selector with one trainer, continuing from the policy of the trainer before it."""

    provides: ClassVar[str] = "policy"

    def enabled(self, context: RunContext) -> bool:
        return context.trains(self.name)

    def reads(self, context: RunContext) -> Sequence[str]:
        learned_from = {"sequences": "sequences", "candidates": "groups"}[context.trainers[self.name].learns_from]
        return ("features", "pools", learned_from, "policy")

    def depends(self, context: RunContext) -> object:
        trainer = context.trainers[self.name]
        reward = context.identity("reward") if trainer.learns_from == "candidates" else None
        return [context.training_identity(), context.identity_of("trainer", self.name, trainer), reward]

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        from leverplus_core.training.data import train

        trainer = context.trainers[self.name]
        from_sequences = trainer.learns_from == "sequences"
        learned_from = (
            read_sequences(inputs["sequences"]) if from_sequences else read_groups(inputs["groups"] / BALANCED)
        )
        metadata = train(
            out,
            context.training(inputs),
            self.name,
            trainer,
            learned_from,
            None if from_sequences else context.reward,
            inputs.get("policy"),
            report.epoch,
        )
        report.validation_questions(read_validation(out))
        return metadata

    def replay(self, context: RunContext, out: Path, report: StageReport) -> None:
        replay_training(out, report)


def read_validation(folder: Path) -> list[str]:
    """The questions that chose the epoch of the policy in `folder`."""
    from leverplus_core.selector.checkpoint import read_meta
    from leverplus_core.training.data import VALIDATION_QUESTIONS

    return list(read_meta(folder).get(VALIDATION_QUESTIONS, ()))


def replay_training(out: Path, report: StageReport) -> None:
    """Report the curve and the validation questions of the policy in `out`."""
    from leverplus_core.training.data import read_curve

    for epoch, metrics in read_curve(out):
        report.epoch(epoch, metrics)
    report.validation_questions(read_validation(out))
