"""`balance`: which measured candidates of a question teach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from leverplus_core.candidates.stats import balance_metadata
from leverplus_core.candidates.store import BALANCED, CANDIDATES, Groups, read_groups, write_groups
from leverplus_core.errors import DataError
from leverplus_core.io import write_json
from leverplus_core.metrics import most_frequent
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stage import Stage, StageReport
from leverplus_core.plugins.contracts import Balancer
from leverplus_core.records import Candidate, Question
from leverplus_core.seeding import rng
from leverplus_core.text import shortened

NOTHING_LEFT = "nothing_left"
"""In the metadata of this stage, where the balancer dropped every question: why, and what the model answers."""
METADATA = "balance.json"
SHOWN = 3
"""Answers of the model, and of the questions, that are quoted."""


class Balance(Stage):
    """Let the balancer choose which candidates teach."""

    name: str = "balance"
    provides: ClassVar[str] = "groups"

    def enabled(self, context: RunContext) -> bool:
        return context.learns_from_candidates

    def reads(self, context: RunContext) -> Sequence[str]:
        return ("candidates",)

    def depends(self, context: RunContext) -> object:
        return [context.identity("balancer"), context.recipe.seed]

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        groups = read_groups(inputs["candidates"] / CANDIDATES)
        selected, metadata, shortfall = balanced(groups, context.balancer, context.recipe.seed)
        if not metadata["after"]["questions"]:
            questions = [] if context.offline else context.dataset.questions("train")
            metadata[NOTHING_LEFT] = nothing_left(groups, metadata, {q.id: q for q in questions})
        write_groups(out / BALANCED, selected)
        write_json(out / METADATA, metadata)
        write_json(out / "shortfall.json", shortfall)
        return metadata


def balanced(groups: Groups, balancer: Balancer, seed: int) -> tuple[Groups, dict[str, Any], dict[str, str]]:
    """What the balancer selects, `balance_metadata`, and question id -> what could not be met.

    Raises DataError when it selects what it was not given.
    """
    selected: dict[str, list[Candidate]] = {}
    shortfall: dict[str, str] = {}
    for q, group in groups.items():
        selected[q] = balancer.select(group, rng(seed, "balance", q))
        if Counter(selected[q]) - Counter(group):
            raise DataError(
                f"the balancer selected for question {q} what it was not given, or twice.", "Fix the balancer."
            )
        why = balancer.shortfall(group, selected[q]) or ("" if selected[q] else "dropped")
        if why:
            shortfall[q] = why
    return selected, balance_metadata(groups, selected, shortfall), shortfall


def nothing_left(groups: Groups, metadata: Mapping[str, Any], questions: Mapping[str, Question]) -> str:
    """One sentence on a balancer that dropped every question: its reasons, what the model answers most often, and what
    the questions' true answers look like where `questions` (by id) are known.

    A model that answers in whole sentences, or always the same, is the commonest cause, and these show it.
    """
    reasons = "; ".join(f"{why}: {count:,}" for why, count in metadata["shortfall"].items())
    said = Counter(candidate.prediction for group in groups.values() for candidate in group)
    text = f"the balancer dropped all {len(groups):,} questions ({reasons})"
    if said:
        often = ", ".join(f"'{shortened(one, 40)}' ({count:,})" for one, count in said.most_common(SHOWN))
        text += f"; of {said.total():,} answers the model's most frequent are {often}"
    true = [most_frequent(questions[q].answers) for q in groups if q in questions][:SHOWN]
    if true:
        text += f"; true answers are such as {', '.join(repr(shortened(one, 40)) for one in true)}"
    return text
