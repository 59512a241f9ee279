"""`beam_search`: the InfoScore beam search for a seeded subset of the train questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from leverplus_core.io import read_jsonl, write_jsonl
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.pools import read_pools
from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
from leverplus_core.records import ScoredSequence
from leverplus_core.scoring.beam_search import beam_search, beam_search_cost, in_blocks
from leverplus_core.selector.ranking import nearest, summed

if TYPE_CHECKING:
    from leverplus_core.selector.features import SelectorFeatures

SEQUENCES = "beams.jsonl"


class BeamSearch(Stage):
    """Search demonstration sequences by InfoScore."""

    name: str = "beam_search"
    provides: ClassVar[str] = "sequences"

    def enabled(self, context: RunContext) -> bool:
        return context.searches or (context.has_sequences and context.is_imported("sequences"))

    def reads(self, context: RunContext) -> Sequence[str]:
        screens = context.recipe.scoring.beam_search.screen is not None
        return ("pools", "features") if screens else ("pools",)

    def depends(self, context: RunContext) -> object:
        recipe = context.recipe
        settings = recipe.scoring.beam_search.model_dump(mode="json")
        return [context.model_identity(), settings, recipe.scoring.questions, recipe.data_seed]

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        scoring = context.recipe.scoring
        questions, pools = context.question_sets.searched, read_pools(inputs["pools"])["train"]
        if scoring.beam_search.screen is not None:
            pools = screened(context.selector_features(inputs), [q.id for q in questions], scoring.beam_search.screen)
        counts, best = [], []

        def searched() -> Iterator[dict[str, Any]]:
            for block in in_blocks(questions, max(len(pools[q.id]) for q in questions), scoring.beam_search):
                for levels in beam_search(context.scorer, block, pools, scoring.beam_search).values():
                    counts.append(len(levels[-1]))
                    best.append(levels[-1][0].score)
                    yield from map(asdict, levels[-1])

        write_jsonl(out / SEQUENCES, searched())
        return {"questions": len(counts), "sequences": sum(counts), "mean_best_score": float(np.mean(best))}

    def cost(self, planning: Planning) -> StageCost:
        scored = planning.sets.searched
        settings = planning.recipe.scoring.beam_search
        pool = min(planning.pool, settings.screen or planning.pool)
        per_question = beam_search_cost(pool, settings)
        return StageCost(
            planning.logprobs({shots: scored * count for shots, count in per_question.items()}),
            # Demonstrations are train images; so are the images of the questions that are scored.
            images=(min(planning.size.train_images, scored * (pool + 1)), 0),
        )


def screened(features: SelectorFeatures, questions: Sequence[str], count: int) -> dict[str, list[str]]:
    """Of each question's pool the `count` nearest by text and image together, in the order of the pool."""
    found: dict[str, list[str]] = {}
    for q in questions:
        both = summed([features.similarity(block, q) for block in ("text", "image")])
        found[q] = [features.pool_ids[q][p] for p in sorted(nearest(both, min(count, len(both))))]
    return found


def read_sequences(folder: Path) -> dict[str, list[ScoredSequence]]:
    """Question id -> kept sequences, best first. Raises DataError for a file that is absent or cut."""
    rows: dict[str, list[ScoredSequence]] = {}
    for row in read_jsonl(folder / SEQUENCES):
        kept = ScoredSequence(row["question_id"], tuple(row["demonstrations"]), row["score"])
        rows.setdefault(kept.question_id, []).append(kept)
    return rows
