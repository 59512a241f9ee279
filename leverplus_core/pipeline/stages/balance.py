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
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stage import Stage, StageReport
from leverplus_core.plugins.contracts import Balancer
from leverplus_core.records import Candidate
from leverplus_core.seeding import rng


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
        write_groups(out / BALANCED, selected)
        write_json(out / "balance.json", metadata)
        write_json(out / "shortfall.json", shortfall)
        return metadata


def balanced(groups: Groups, balancer: Balancer, seed: int) -> tuple[Groups, dict[str, Any], dict[str, str]]:
    """What the balancer selects, `balance_metadata`, and question id -> what could not be met.

    Raises DataError when it drops every question, or selects what it was not given.
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
    metadata = balance_metadata(groups, selected, shortfall)
    if not metadata["after"]["questions"]:
        reasons = "; ".join(f"{why}: {count}" for why, count in metadata["shortfall"].items())
        raise DataError(
            f"the balancer dropped all {len(groups)} questions ({reasons}).",
            "Loosen its settings, score more questions, or use keep_all.",
        )
    return selected, metadata, shortfall
