"""`pairwise`: the settings of a learned similarity; the network is in `pairwise_policy`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from leverplus_core import TrainableSelector


class PairwiseSelector(TrainableSelector):
    """A learned similarity: the most similar are chosen, best first; small, and good with few questions."""

    network: ClassVar[str] = "leverplus_selectors.pairwise_policy:PairwisePolicy"

    width: int = Field(128, ge=1, le=4096)
    dropout: float = Field(0.4, ge=0, lt=1)
