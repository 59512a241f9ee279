"""`mixed`: part uniform, part nearest in text, in image, in both together, and in hidden state."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
from pydantic import Field, model_validator

from leverplus_core import Bank, DataError, Query, Sampler
from leverplus_samplers.choice import nearest, nearest_in_both, rows_for


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
        rows = rows_for(query, bank, self.k)
        chosen: dict[int, None] = {}  # a dict keeps the order of insertion
        pairs = {"text": (bank.features.text, query.text), "image": (bank.features.image, query.image)}
        if bank.features.state is not None and query.state is not None:
            pairs["state"] = (bank.features.state, query.state)
        for name, share in self._shares().items():
            count = math.floor(share * self.k)
            if count:
                if name == "state" and name not in pairs:
                    raise DataError(
                        "sampler mixed: state is above 0, and there are no hidden states.", "Set encoder.hidden_states."
                    )
                # A row that is in already is passed over for the next nearest, so that each share is filled.
                most = count + len(chosen)
                if name == "text_image":
                    near = nearest_in_both(rows, (pairs["text"], pairs["image"]), most)
                else:
                    near = nearest(rows, *pairs[name], most)
                fresh = (int(row) for row in near if int(row) not in chosen)
                chosen.update(dict.fromkeys(islice(fresh, count)))
        rest = np.array([row for row in rows if int(row) not in chosen], dtype=np.intp)
        uniform = rng.choice(rest, size=self.k - len(chosen), replace=False)
        return [int(row) for row in uniform] + list(chosen)

    def blocks(self) -> frozenset[str]:
        names = [name for name, share in self._shares().items() if math.floor(share * self.k)]
        return frozenset(block for name in names for block in name.split("_"))

    def _shares(self) -> dict[str, float]:
        """In the order in which they are taken."""
        return {"text": self.text, "image": self.image, "text_image": self.text_image, "state": self.state}
