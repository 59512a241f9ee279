"""`propose`: demonstration sequences proposed by the policy, by retrieval and by chance, and measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from leverplus_core.candidates.stats import Tally
from leverplus_core.candidates.store import CANDIDATES, by_question
from leverplus_core.io import write_jsonl
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.folds import WHOLE
from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
from leverplus_core.records import Ids

BATCH = 256
BLOCK = 1 << 15
"""Questions whose candidates are measured together: so many that workers seldom wait for each other, and no more, so
that memory does not grow with their number."""


class Propose(Stage):
    """Propose candidates with the policy as it stands, that of the question's fold, and measure them."""

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

        recipe, folds = context.recipe, context.folds
        features = context.training(inputs).features
        questions = {q.id: q for q in context.question_sets.proposed}
        asked = list(questions)
        proposed: dict[str, list[tuple[Ids, str]]] = {}
        with context.progress.task("propose candidates", len(asked)) as task:
            for fold in folds.names:
                learned = inputs["policy"] / fold if "policy" in inputs else None
                training = context.training(inputs, fold)
                taught = [q for q in asked if fold == WHOLE or q in training.features.row]
                policy = training.init_policy(learned, taught)
                ids = folds.answered(fold, asked)
                for start in range(0, len(ids), BATCH):
                    part = ids[start : start + BATCH]
                    batch = features.batch(part)
                    found = propose(policy, batch, part, recipe.scoring.candidates, recipe.seed, recipe.prompt.order)
                    for q, sequences in zip(part, found, strict=True):
                        pool = features.pool_ids[q]
                        proposed[q] = [(tuple(pool[p] for p in at), source) for at, source in sequences]
                    task.advance(len(part))
        tally = Tally()

        def measured() -> Iterator[dict[str, Any]]:
            for start in range(0, len(asked), BLOCK):
                block = asked[start : start + BLOCK]
                rows = [(questions[q], sequence, source) for q in block for sequence, source in proposed[q]]
                for group in by_question(context.scorer.candidates(rows)).values():
                    tally.add(group)
                    yield from map(asdict, group)

        write_jsonl(out / CANDIDATES, measured())
        return tally.summary()

    def cost(self, planning: Planning) -> StageCost:
        return planning.measured(planning.recipe.scoring.candidates.counts(planning.pool))
