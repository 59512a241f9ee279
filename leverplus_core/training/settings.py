"""Settings of the three trainings. `epochs: 0` switches one off."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FitSettings(BaseModel):
    """What the loop needs: AdamW, warm-up then cosine to zero, and how many questions a step holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(20, ge=0, description="passes over the train questions; 0 is off")
    lr: float = Field(1e-3, gt=0, description="highest learning rate of AdamW")
    weight_decay: float = Field(1e-3, ge=0)
    batch: int = Field(32, ge=1, description="questions a step")
    warm_up: float = Field(0.05, ge=0, lt=1, description="share of the steps that raise the rate from zero")
    grad_clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    patience: int | None = Field(None, ge=1, description="stop after so many epochs with no better held-out score")


class SftSettings(FitSettings):
    """Supervised: the sequences that the InfoScore beam search kept are the labels."""

    weight_by_score: bool = Field(False, description="weigh a question's sequences by softmax of their InfoScores")
    score_temperature: float = Field(0.1, gt=0, description="of that softmax; InfoScores are probabilities' gains")


class StopSettings(BaseModel):
    """How a selector with a learned stop learns it, in RCE and in GRPO."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cost: float = Field(0.02, ge=0, description="of a demonstration shown, in units of reward")


class RceSettings(FitSettings):
    """Reward-weighted cross-entropy over measured candidates."""

    epochs: int = Field(5, ge=0, description="passes over the train questions; 0 is off")
    tau_start: float = Field(2.0, gt=0, description="temperature of the reward weights in the first epoch")
    tau_end: float = Field(0.5, gt=0, description="and in the last; linear between")
    stop: StopSettings = StopSettings()


class GrpoSettings(FitSettings):
    """Group-relative policy optimisation against the policy as it starts."""

    epochs: int = Field(0, ge=0, description="passes over the train questions; 0 is off")
    lr: float = Field(1e-5, gt=0, description="highest learning rate of AdamW")
    beta: float = Field(0.1, ge=0, description="weight of the KL term")
    clip: float = Field(0.2, gt=0, description="PPO clip of the probability ratio")
    advantage_clip: float = Field(5.0, gt=0)
    stop: StopSettings = StopSettings()
    patience: int | None = Field(3, ge=1, description="stop after so many epochs with no better held-out score")
