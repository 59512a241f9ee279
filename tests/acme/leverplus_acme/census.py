"""A stage: counts what the balancer leaves to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from leverplus_core import BALANCED, Stage, StageReport, read_groups, write_json

if TYPE_CHECKING:
    from leverplus_core import RunContext


class Census(Stage):
    """Count the questions and candidates that are left after balancing."""

    name: str = "acme_census"
    after: ClassVar[str] = "balance"

    def reads(self, context: RunContext) -> Sequence[str]:
        return ("groups",)

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        groups = read_groups(inputs["groups"] / BALANCED)
        counts = {"questions": len(groups), "candidates": sum(map(len, groups.values()))}
        write_json(out / "census.json", counts)
        return counts
