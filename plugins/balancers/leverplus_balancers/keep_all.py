"""`keep_all`: no balancing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leverplus_core import Balancer, Candidate


class KeepAllBalancer(Balancer):
    """Every candidate teaches."""

    def pick(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        return list(group)
