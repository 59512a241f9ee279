"""`propose`: demonstration sequences proposed by the policy, by retrieval and by chance, and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from leverplus_core.candidates.stats import summary
from leverplus_core.candidates.store import CANDIDATES, by_question, write_groups
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
from leverplus_core.pipeline.stages.beam_search import read_sequences
from leverplus_core.records import Ids, Question

BATCH = 256


class Propose(Stage):
    """Propose candidates with the policy as it stands, and measure them."""

    name: str = "propose"
    provides: ClassVar[str] = "candidates"

    def enabled(self, context: RunContext) -> bool:
        return context.learns_from_candidates

    def reads(self, context: RunContext) -> Sequence[str]:
        return ("features", "pools", "sequences", "policy")

    def depends(self, context: RunContext) -> object:
        settings = context.recipe.scoring.candidates.model_dump(mode="json")
        return [context.training_identity(), context.measurement_identity(), settings]

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        from leverplus_core.selector.propose import propose

        training, recipe = context.training(inputs), context.recipe
        questions = {q.id: q for q in context.dataset.questions("train")}
        ids = list(read_sequences(inputs["sequences"]))
        policy = training.init_policy(inputs.get("policy"), ids)
        rows: list[tuple[Question, Ids, str]] = []
        with context.progress.task("propose candidates", len(ids)) as task:
            for start in range(0, len(ids), BATCH):
                part = ids[start : start + BATCH]
                batch = training.features.batch(part)
                proposed = propose(policy, batch, part, recipe.scoring.candidates, recipe.seed, recipe.prompt.order)
                for question_id, found in zip(part, proposed, strict=True):
                    pool = training.features.pool_ids[question_id]
                    rows += [(questions[question_id], tuple(pool[p] for p in at), source) for at, source in found]
                task.advance(len(part))
        groups = by_question(context.scorer.candidates(rows))
        write_groups(out / CANDIDATES, groups)
        return summary(groups)

    def cost(self, planning: Planning) -> StageCost:
        return planning.measured(planning.recipe.scoring.candidates.counts(planning.pool))
