"""`random`, which the Lever-Plus report calls `rand`: a uniform pool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from leverplus_core import Bank, Query, Sampler
from leverplus_samplers.choice import drawn, hidden_rows


class RandomSampler(Sampler):
    """Uniform without replacement from the demonstrations the question may be shown."""

    k: int = Field(64, ge=1, description="demonstrations in a pool")

    def pool(self, query: Query, bank: Bank, rng: np.random.Generator) -> list[int]:
        return self.pools([query], bank, [rng])[0]

    def pools(self, queries: Sequence[Query], bank: Bank, rngs: Sequence[np.random.Generator]) -> list[list[int]]:
        hidden = hidden_rows(queries, bank, self.k)
        total = len(bank.demonstrations)
        return [drawn(rng, total, own, self.k).tolist() for rng, own in zip(rngs, hidden, strict=True)]

    def blocks(self) -> frozenset[str]:
        return frozenset()
