"""`pool`: each question's frozen pool of demonstrations, drawn once for every later stage.

With cross-fitting a pool holds no demonstration of the question's own fold, so that all folds share one search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from leverplus_core.errors import DataError
from leverplus_core.io import read_json, write_json
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.pools import POOLS
from leverplus_core.pipeline.stage import Stage, StageReport
from leverplus_core.plugins.contracts import Bank, Query
from leverplus_core.seeding import rng


class Pool(Stage):
    """Draw each question's pool."""

    name: str = "pool"
    provides: ClassVar[str] = "pools"

    def reads(self, context: RunContext) -> Sequence[str]:
        return ("features",) if context.offline or context.sampler.blocks() else ()

    def depends(self, context: RunContext) -> object:
        imported = context.imported.fingerprint if context.imported and context.imported.has("pools") else None
        drawn = [context.identity("dataset"), context.identity("sampler"), context.recipe.data_seed, imported]
        return [*drawn, context.recipe.evaluation.folds] if context.cross_fit else drawn

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        dataset, sampler, folds = context.dataset, context.sampler, context.folds
        demonstrations = dataset.demonstrations()
        features = context.feature_set(inputs) if inputs else None
        whole = Bank(demonstrations, features.demonstrations) if features else Bank.without_features(demonstrations)
        banks = {fold: folds.bank(fold, whole) for fold in folds.names}
        pools: dict[str, dict[str, list[str]]] = {}
        for split in context.splits:
            questions = dataset.questions(split)
            rows = features.of_questions([q.id for q in questions]) if features else None
            pools[split] = {}
            with context.progress.task(f"pools of {split} questions", len(questions)) as task:
                for i, question in enumerate(questions):
                    query, bank = Query.of(question, rows, i), banks[folds.of_question(question.id)]
                    drawn = sampler.pool(query, bank, rng(context.recipe.data_seed, "pool", question.id))
                    ids = [bank.demonstrations[row].id for row in drawn]
                    own_image = any(bank.demonstrations[row].image.id == question.image.id for row in drawn)
                    if len(set(ids)) != sampler.k or own_image:
                        raise DataError(
                            f"the pool of question {question.id} has repeats, its own image, or not {sampler.k} rows.",
                            f"Fix the sampler '{context.recipe.sampler.name}'.",
                        )
                    pools[split][question.id] = ids
                    task.advance()
        if context.imported is not None and context.imported.has("pools"):
            pools["train"] |= read_json(context.imported.root / POOLS)["train"]
        write_json(out / POOLS, pools)
        return {"k": sampler.k, **{split: len(rows) for split, rows in pools.items()}}
