"""`text_knn` and `image_knn`: the demonstrations nearest to the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field

from leverplus_core import Bank, Query, Sampler, nearest_rows
from leverplus_samplers.choice import hidden_rows


class _KnnSampler(Sampler):
    k: int = Field(64, ge=1, description="demonstrations in a pool")

    block: ClassVar[str]

    def pool(self, query: Query, bank: Bank, rng: np.random.Generator) -> list[int]:
        return self.pools([query], bank, [rng])[0]

    def pools(self, queries: Sequence[Query], bank: Bank, rngs: Sequence[np.random.Generator]) -> list[list[int]]:
        hidden = hidden_rows(queries, bank, self.k)
        vectors = np.stack([getattr(query, self.block) for query in queries])
        near = nearest_rows([(vectors, getattr(bank.features, self.block))], hidden, self.k)
        return [rows.tolist() for rows in near]

    def blocks(self) -> frozenset[str]:
        return frozenset({self.block})


class TextKnnSampler(_KnnSampler):
    """The k demonstrations whose question is nearest to this one, by cosine; ties by row number."""

    block: ClassVar[str] = "text"


class ImageKnnSampler(_KnnSampler):
    """The k demonstrations whose image is nearest to this one, by cosine; ties by row number."""

    block: ClassVar[str] = "image"
