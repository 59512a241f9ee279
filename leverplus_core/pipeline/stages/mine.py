"""`mine`: more positives for questions that have few, by measuring more sequences of their pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from leverplus_core.candidates.mine import mine
from leverplus_core.candidates.stats import summary
from leverplus_core.candidates.store import CANDIDATES, MINED, by_question, read_groups, write_groups
from leverplus_core.io import write_json
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
from leverplus_core.plugins.contracts import Floats


class Mine(Stage):
    """Measure more sequences for questions with few positives; its result holds the candidates before it, too."""

    name: str = "mine"
    provides: ClassVar[str] = "candidates"

    def enabled(self, context: RunContext) -> bool:
        return context.recipe.scoring.mining.min_positives > 0 and context.learns_from_candidates

    def reads(self, context: RunContext) -> Sequence[str]:
        return ("features", "pools", "candidates")

    def depends(self, context: RunContext) -> object:
        settings = context.recipe.scoring.mining.model_dump(mode="json")
        return [context.measurement_identity(), settings, context.recipe.seed]

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        groups = read_groups(inputs["candidates"] / CANDIDATES)
        questions = [q for q in context.dataset.questions("train") if q.id in groups]
        features = context.selector_features(inputs)

        def similarity(question_id: str) -> Floats:
            return features.similarity("image", question_id) + features.similarity("text", question_id)

        mined = mine(
            context.scorer, questions, groups, features.pool_ids, similarity, context.recipe.scoring.mining,
            context.recipe.seed, context.progress,
        )  # fmt: skip
        union = by_question([c for group in groups.values() for c in group] + mined.candidates)
        write_groups(out / CANDIDATES, union)
        metadata = {"before": summary(groups), "after": summary(union), **mined.metadata}
        write_json(out / MINED, metadata)
        return metadata

    def cost(self, planning: Planning) -> StageCost:
        scoring = planning.recipe.scoring
        counts = scoring.mining.counts(planning.pool, scoring.candidates.shots)
        return planning.measured(counts, scoring.mining.budget)
