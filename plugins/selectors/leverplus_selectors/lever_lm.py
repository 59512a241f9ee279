"""`lever_lm`: the settings of the autoregressive selector; the network is in `lever_lm_policy`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from leverplus_core import TrainableSelector


class LeverLmSelector(TrainableSelector):
    """Lever-LM: a small GPT-2 over the question and the demonstrations chosen so far."""

    network: ClassVar[str] = "leverplus_selectors.lever_lm_policy:LeverLmPolicy"

    width: int = Field(128, ge=1, le=4096)
    layers: int = Field(2, ge=1, le=48, description="GPT-2 blocks")
    heads: int = Field(4, ge=1, le=64)
    stop: bool = Field(False, description="learn when to stop, from candidates of several lengths")
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> LeverLmSelector:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self
