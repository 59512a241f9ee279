"""Built-in rewards: a question's measurements become one number a candidate."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_rewards() -> dict[str, str]:
    return {
        "separated": "leverplus_rewards.separated:SeparatedReward",
        "hard_plus_soft": "leverplus_rewards.hard_plus_soft:HardPlusSoftReward",
    }
