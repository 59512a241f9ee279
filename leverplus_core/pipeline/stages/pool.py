"""`pool`: each question's frozen pool of demonstrations, drawn once for every later stage.

Only questions that the recipe asks get one: a large train split is a bank of demonstrations of which few are asked. A
pool follows from its question alone, so that a recipe which asks others adds theirs to the same folder.

With cross-fitting a pool holds no demonstration of the question's own fold, so that all folds share one search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from leverplus_core.errors import DataError
from leverplus_core.io import read_json, write_json
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.pools import POOLS, all_pools, read_pools
from leverplus_core.pipeline.stage import Stage, StageReport
from leverplus_core.plugins.contracts import Bank, Query
from leverplus_core.seeding import rng

BATCH = 256
"""The most questions that a sampler is given at once."""


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
        demonstrations, wanted = dataset.demonstrations(), self._wanted(context)
        known = read_pools(out) if (out / POOLS).exists() else {}
        features = context.feature_set(inputs) if inputs else None
        whole = Bank(demonstrations, features.demonstrations) if features else Bank.without_features(demonstrations)
        banks = {fold: folds.bank(fold, whole) for fold in folds.names}
        pools: dict[str, dict[str, Sequence[str]]] = {}
        for split in context.splits:
            there = known.get(split, {})
            questions = [q for q in dataset.questions(split) if q.id not in there and (not wanted or q.id in wanted)]
            rows = features.of_questions([q.id for q in questions]) if features else None
            drawn: dict[str, Sequence[str]] = {**there}
            with context.progress.task(f"pools of {split} questions", len(questions)) as task:
                for fold, bank in banks.items():
                    of_fold = [i for i, q in enumerate(questions) if folds.of_question(q.id) == fold]
                    for start in range(0, len(of_fold), BATCH):
                        queries = [Query.of(questions[i], rows, i) for i in of_fold[start : start + BATCH]]
                        drawn |= self._draw(context, bank, queries)
                        task.advance(len(queries))
            pools[split] = {q.id: drawn[q.id] for q in dataset.questions(split) if q.id in drawn}
        if context.imported is not None and context.imported.has("pools"):
            pools["train"] |= read_json(context.imported.root / POOLS)["train"]
        write_json(out / POOLS, pools)
        return {"k": sampler.k, **{split: len(rows) for split, rows in pools.items()}}

    def suffices(self, context: RunContext, out: Path) -> bool:
        there = all_pools(out)
        wanted = self._wanted(context) or {q.id for split in context.splits for q in context.dataset.questions(split)}
        return wanted <= there.keys()

    def _wanted(self, context: RunContext) -> set[str] | None:
        """The questions that need a pool; None for all, where nothing says which."""
        return None if context.offline else context.question_sets.asked

    def _draw(self, context: RunContext, bank: Bank, queries: Sequence[Query]) -> dict[str, list[str]]:
        """The pools of a batch of questions. Raises DataError for one that breaks the contract of samplers."""
        sampler = context.sampler
        rngs = [rng(context.recipe.data_seed, "pool", query.question.id) for query in queries]
        found = sampler.pools(queries, bank, rngs)
        if len(found) != len(queries):
            raise DataError(
                f"sampler '{context.recipe.sampler.name}' drew {len(found)} pools for {len(queries)} questions.",
                "Fix the sampler.",
            )
        drawn: dict[str, list[str]] = {}
        for query, rows in zip(queries, found, strict=True):
            ids = [bank.demonstrations[row].id for row in rows]
            question = query.question
            own_image = any(bank.demonstrations[row].image.id == question.image.id for row in rows)
            if len(set(ids)) != sampler.k or own_image:
                raise DataError(
                    f"the pool of question {question.id} has repeats, its own image, or not {sampler.k} rows.",
                    f"Fix the sampler '{context.recipe.sampler.name}'.",
                )
            drawn[question.id] = ids
        return drawn
