"""`pointer`: the settings of a pointer network over a question's pool; the network is in `pointer_policy`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from leverplus_core import Temperature, TrainableSelector


class PointerSelector(TrainableSelector):
    """A pointer network: the question attends to its pool, and each choice changes what is sought next."""

    network: ClassVar[str] = "leverplus_selectors.pointer_policy:PointerPolicy"

    width: int = Field(128, ge=1, le=4096)
    layers: int = Field(1, ge=1, le=3, description="cross-attention layers between question and pool")
    heads: int = Field(4, ge=1, le=64)
    state: Literal["none", "gate", "gru"] = Field("gru", description="how a choice changes what is sought next")
    score: Literal["dot", "additive", "bilinear"] = Field("bilinear", description="how a state and a candidate compare")
    diversity: Literal["none", "mmr"] = Field("none", description="mmr: what is similar to a chosen one counts less")
    mmr_weight: float = Field(0.3, ge=0, le=1, description="weight of that penalty in the score")
    stop: bool = Field(False, description="learn when to stop, from candidates of several lengths")
    temperature: Temperature = Field(0.1, description="of the cosine scores")
    dropout: float = Field(0.2, ge=0, lt=1)
    similarity: bool = Field(True, description="add a learned weight on the image and text similarities to the score")

    @model_validator(mode="after")
    def _fits(self) -> PointerSelector:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        if self.stop and self.state == "none":
            raise ValueError("stop needs a state (gate or gru): without one, nothing records what was chosen")
        return self
