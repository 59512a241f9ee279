"""`text_knn` and `image_knn`: the demonstrations nearest to the question."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from leverplus_core import Bank, Query, Sampler
from leverplus_samplers.choice import nearest, rows_for


class TextKnnSampler(Sampler):
    """The k demonstrations whose question is nearest to this one, by cosine; ties by row number."""

    k: int = Field(64, ge=1, description="demonstrations in a pool")

    def pool(self, query: Query, bank: Bank, rng: np.random.Generator) -> list[int]:
        rows = nearest(rows_for(query, bank, self.k), bank.features.text, query.text, self.k)
        return [int(row) for row in rows]

    def blocks(self) -> frozenset[str]:
        return frozenset({"text"})


class ImageKnnSampler(Sampler):
    """The k demonstrations whose image is nearest to this one, by cosine; ties by row number."""

    k: int = Field(64, ge=1, description="demonstrations in a pool")

    def pool(self, query: Query, bank: Bank, rng: np.random.Generator) -> list[int]:
        rows = nearest(rows_for(query, bank, self.k), bank.features.image, query.image, self.k)
        return [int(row) for row in rows]

    def blocks(self) -> frozenset[str]:
        return frozenset({"image"})
