"""`online`: on-policy rounds of propose, measure and train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from leverplus_core.candidates.store import BALANCED, read_groups
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
from leverplus_core.pipeline.stages.train import read_validation, replay_training


class Online(Stage):
    """Propose with the policy as it stands, measure, train, and again."""

    name: str = "online"
    provides: ClassVar[str] = "policy"

    def enabled(self, context: RunContext) -> bool:
        return context.recipe.training.online.rounds > 0

    def reads(self, context: RunContext) -> Sequence[str]:
        return ("features", "pools", "groups", "policy")

    def depends(self, context: RunContext) -> object:
        online = context.recipe.training.online
        trainer = context.identity_of("trainer", online.trainer, context.trainers[online.trainer])
        measured = [context.measurement_identity(), context.identity("reward")]
        return [context.training_identity(), measured, online.model_dump(mode="json"), trainer]

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        from leverplus_core.training.online import learn_online

        settings = context.recipe.training.online
        metadata = learn_online(
            out,
            context.training(inputs),
            {q.id: q for q in context.dataset.questions("train")},
            read_groups(inputs["groups"] / BALANCED),
            inputs.get("policy"),
            context.scorer,
            context.reward,
            settings,
            context.trainers[settings.trainer],
            report.epoch,
        )
        report.validation_questions(read_validation(out))
        return metadata

    def replay(self, context: RunContext, out: Path, report: StageReport) -> None:
        replay_training(out, report)

    def cost(self, planning: Planning) -> StageCost:
        online = planning.recipe.training.online
        return planning.measured(online.counts(planning.pool), online.budget)
