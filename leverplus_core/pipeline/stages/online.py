"""`online`: on-policy rounds of propose, measure and train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from leverplus_core.candidates.store import BALANCED, CANDIDATES, read_groups
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.judging import judge_cost, judge_identity, judge_of
from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
from leverplus_core.pipeline.stages.train import read_validation, replay_training, without_groups


class Online(Stage):
    """Propose with the policy as it stands, measure, train, and again."""

    name: str = "online"
    provides: ClassVar[str] = "policy"

    def enabled(self, context: RunContext) -> bool:
        return "online" in context.policies

    def reads(self, context: RunContext) -> Sequence[str]:
        return ("features", "pools", "groups", "candidates", "policy")

    def depends(self, context: RunContext) -> object:
        online = context.recipe.training.online
        trainer = context.identity_of("trainer", online.trainer, context.trainers[online.trainer])
        measured = [context.measurement_identity(), context.identity("reward")]
        return [context.training_identity(), measured, online.model_dump(mode="json"), trainer, judge_identity(context)]

    def lacks(self, context: RunContext, inputs: Mapping[str, Path]) -> str:
        return without_groups(inputs)

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        from leverplus_core.training.online import learn_online

        settings, training = context.recipe.training.online, context.training(inputs)
        trainer, known = context.trainers[settings.trainer], read_groups(inputs["candidates"] / CANDIDATES)
        metadata = learn_online(
            out,
            training,
            {q.id: q for q in context.dataset.questions("train")},
            read_groups(inputs["groups"] / BALANCED),
            inputs.get("policy"),
            context.scorer,
            context.reward,
            settings,
            trainer,
            judge_of(context, training, trainer, known),
            list(known),
            report.epoch,
        )
        report.validation_questions(read_validation(out))
        return metadata

    def replay(self, context: RunContext, out: Path, report: StageReport) -> None:
        replay_training(out, report)

    def cost(self, planning: Planning) -> StageCost:
        online = planning.recipe.training.online
        measured = planning.measured(online.counts(planning.pool), online.budget)
        judged = judge_cost(planning, planning.sets.proposed, online.rounds * (online.epochs + 1) - 1)
        answers = {
            n: measured.answers.get(n, 0) + judged.answers.get(n, 0) for n in (*measured.answers, *judged.answers)
        }
        return replace(measured, answers=answers)
