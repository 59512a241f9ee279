"""`random`, which the Lever-Plus report calls `rand`: a uniform pool."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from leverplus_core import Bank, Query, Sampler
from leverplus_samplers.choice import rows_for


class RandomSampler(Sampler):
    """Uniform without replacement from the demonstrations the question may be shown."""

    k: int = Field(64, ge=1, description="demonstrations in a pool")

    def pool(self, query: Query, bank: Bank, rng: np.random.Generator) -> list[int]:
        rows = rows_for(query, bank, self.k)
        return [int(row) for row in rng.choice(rows, size=self.k, replace=False)]

    def blocks(self) -> frozenset[str]:
        return frozenset()
