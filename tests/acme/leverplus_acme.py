"""A whole third-party package: one reward."""

from __future__ import annotations

from collections.abc import Sequence

from leverplus_core import Candidate, Reward, hookimpl


class GapReward(Reward):
    """Correct answers stand a fixed gap above wrong ones."""

    gap: float = 2.0

    def compute(self, group: Sequence[Candidate]) -> list[float]:
        return [c.accuracy + self.gap * c.correct for c in group]


@hookimpl
def leverplus_rewards() -> dict[str, str]:
    return {"acme": "leverplus_acme:GapReward"}
