"""Built-in rewards: one number per candidate from its measurements."""

from __future__ import annotations

from leverplus_core import hookimpl


@hookimpl
def leverplus_rewards() -> dict[str, str]:
    """The rewards of this room."""
    return {
        "separated": "leverplus_rewards.weighted:SeparatedReward",
        "hard_plus_soft": "leverplus_rewards.weighted:HardPlusSoftReward",
        "hard_plus_soft_v2": "leverplus_rewards.weighted:HardPlusSoftV2Reward",
        "hard_only": "leverplus_rewards.weighted:HardOnlyReward",
        "soft_only": "leverplus_rewards.weighted:SoftOnlyReward",
        "hard_plus_gt_prob": "leverplus_rewards.weighted:HardPlusGtProbReward",
        "separated_gt_prob": "leverplus_rewards.weighted:SeparatedGtProbReward",
        "hard_gt_prob_rel": "leverplus_rewards.weighted:HardGtProbRelReward",
        "info_score": "leverplus_rewards.weighted:InfoScoreReward",
        "mixed": "leverplus_rewards.mixed:MixedReward",
    }
