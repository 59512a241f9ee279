"""A training of the selector: one stage for each trainer, named as the trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from leverplus_core.candidates.store import BALANCED, CANDIDATES, read_groups
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.judging import judge_cost, judge_identity, judge_of
from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
from leverplus_core.pipeline.stages.beam_search import read_sequences


class Train(Stage):
    """Train the selector with one trainer, continuing from the policy of the trainer before it, or that it names."""

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

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        from leverplus_core.training.data import train

        trainer, training = context.trainers[self.name], context.training(inputs)
        from_sequences = trainer.learns_from == "sequences"
        learned_from: Mapping[str, Any]
        known: Mapping[str, Any]
        if from_sequences:
            learned_from = known = read_sequences(inputs["sequences"])
        else:
            learned_from = read_groups(inputs["groups"] / BALANCED)
            known = read_groups(inputs["candidates"] / CANDIDATES)
        metadata = train(
            out,
            training,
            self.name,
            trainer,
            learned_from,
            None if from_sequences else context.reward,
            inputs.get(self._start(context)),
            judge_of(context, training, trainer, known),
            list(known),
            report.epoch,
        )
        report.validation_questions(read_validation(out))
        return metadata

    def replay(self, context: RunContext, out: Path, report: StageReport) -> None:
        replay_training(out, report)

    def cost(self, planning: Planning) -> StageCost:
        trainer = planning.context.trainers[self.name]
        return judge_cost(planning, planning.scored, trainer.epochs)

    def _start(self, context: RunContext) -> str:
        """The content that holds the policy to continue from."""
        start = context.start_of(self.name)
        return "policy" if start is None else f"@{start}"


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
