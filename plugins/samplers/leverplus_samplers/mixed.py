"""`mixed`: part uniform, part nearest in text, in image, in both together, and in hidden state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np
from pydantic import Field, model_validator

from leverplus_core import Bank, DataError, Floats, Query, Sampler, nearest_rows
from leverplus_samplers.choice import drawn, hidden_rows, nearest_in_both


class MixedSampler(Sampler):
    """Half uniform, a quarter nearest in text, a quarter in image, or in other shares; duplicates removed and refilled.

    The near ones are taken first and the uniform draw fills up what is left, so that a demonstration near in both
    counts once and the pool still has k. Text takes the rounded-down share, then image, then both, then state; the rest
    is drawn. `text_image` is the sum of both similarities, each in deviations from its mean over the bank.
    """

    k: int = Field(64, ge=1, description="demonstrations in a pool")
    text: float = Field(0.25, ge=0, le=1, description="share nearest by the question's text")
    image: float = Field(0.25, ge=0, le=1, description="share nearest by the image")
    text_image: float = Field(0.0, ge=0, le=1, description="share nearest by text and image together")
    state: float = Field(0.0, ge=0, le=1, description="share nearest by `encoder.hidden_states`; the rest is uniform")

    @model_validator(mode="after")
    def _shares_fit(self) -> MixedSampler:
        shares = self._shares()
        if sum(shares.values()) > 1 + 1e-9:
            given = ", ".join(f"{name}={share}" for name, share in shares.items())
            raise ValueError(f"the shares {given} must not add up to more than 1")
        return self

    def pool(self, query: Query, bank: Bank, rng: np.random.Generator) -> list[int]:
        return self.pools([query], bank, [rng])[0]

    def pools(self, queries: Sequence[Query], bank: Bank, rngs: Sequence[np.random.Generator]) -> list[list[int]]:
        hidden = hidden_rows(queries, bank, self.k)
        chosen: list[dict[int, None]] = [{} for _ in queries]  # a dict keeps the order of insertion
        most = 0
        for name, share in self._shares().items():
            count = math.floor(share * self.k)
            if not count:
                continue
            # A row that is in already is passed over for the next nearest, so that each share is filled.
            most += count
            blocks = [(block, self._vectors(block, queries, bank)) for block in name.split("_")]
            if len(blocks) > 1:
                near = nearest_in_both(bank, blocks, hidden, most)
            else:
                near = nearest_rows([(blocks[0][1], getattr(bank.features, name))], hidden, most)
            for pool, rows in zip(chosen, near, strict=True):
                pool.update(dict.fromkeys(islice((row for row in rows.tolist() if row not in pool), count)))
        total = len(bank.demonstrations)
        found = []
        for rng, own, pool in zip(rngs, hidden, chosen, strict=True):
            without = np.sort(np.concatenate([own, np.fromiter(pool, np.intp, len(pool))]))
            found.append([*drawn(rng, total, without, self.k - len(pool)).tolist(), *pool])
        return found

    def _vectors(self, block: str, queries: Sequence[Query], bank: Bank) -> Floats:
        """(B, D) the queries' rows of a block. Raises DataError for hidden states that are not there."""
        if block == "state" and (bank.features.state is None or any(query.state is None for query in queries)):
            raise DataError(
                "sampler mixed: state is above 0, and there are no hidden states.", "Set encoder.hidden_states."
            )
        return np.stack([getattr(query, block) for query in queries])

    def blocks(self) -> frozenset[str]:
        names = [name for name, share in self._shares().items() if math.floor(share * self.k)]
        return frozenset(block for name in names for block in name.split("_"))

    def _shares(self) -> dict[str, float]:
        """In the order in which they are taken."""
        return {"text": self.text, "image": self.image, "text_image": self.text_image, "state": self.state}
