"""A third-party package that takes the name of a built-in reward."""

from __future__ import annotations

from collections.abc import Sequence

from leverplus_core import Candidate, Reward, hookimpl


class OtherSeparatedReward(Reward):
    """Not the built-in of this name."""

    def compute(self, group: Sequence[Candidate]) -> list[float]:
        return [float(c.correct) for c in group]


@hookimpl
def leverplus_rewards() -> dict[str, str]:
    return {"separated": "leverplus_acme_clash:OtherSeparatedReward"}
