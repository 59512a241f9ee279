"""`mixed`: part uniform, part nearest in text, in image, and in hidden state."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
from pydantic import Field, model_validator

from leverplus_core import Bank, DataError, Query, Sampler
from leverplus_samplers.choice import nearest, rows_for


class MixedSampler(Sampler):
    """Half uniform, a quarter nearest in text, a quarter in image, or in other shares; duplicates removed and refilled.

    The near ones are taken first and the uniform draw fills up what is left, so that a demonstration near in both
    counts once and the pool still has k. Text takes the rounded-down share, then image, then state; the rest is drawn.
    """

    k: int = Field(64, ge=1, description="demonstrations in a pool")
    text: float = Field(0.25, ge=0, le=1, description="share nearest by the question's text")
    image: float = Field(0.25, ge=0, le=1, description="share nearest by the image")
    state: float = Field(0.0, ge=0, le=1, description="share nearest by `encoder.hidden_states`; the rest is uniform")

    @model_validator(mode="after")
    def _shares_fit(self) -> MixedSampler:
        shares = {"text": self.text, "image": self.image, "state": self.state}
        if sum(shares.values()) > 1 + 1e-9:
            given = ", ".join(f"{name}={share}" for name, share in shares.items())
            raise ValueError(f"the shares {given} must not add up to more than 1")
        return self

    def pool(self, query: Query, bank: Bank, rng: np.random.Generator) -> list[int]:
        rows = rows_for(query, bank, self.k)
        chosen: dict[int, None] = {}  # a dict keeps the order of insertion
        for share, features, vector in (
            (self.text, bank.features.text, query.text),
            (self.image, bank.features.image, query.image),
            (self.state, bank.features.state, query.state),
        ):
            count = math.floor(share * self.k)
            if count:
                if features is None or vector is None:
                    raise DataError(
                        "sampler mixed: state is above 0, and there are no hidden states.", "Set encoder.hidden_states."
                    )
                # A row that is in already is passed over for the next nearest, so that each share is filled.
                near = nearest(rows, features, vector, count + len(chosen))
                fresh = (int(row) for row in near if int(row) not in chosen)
                chosen.update(dict.fromkeys(islice(fresh, count)))
        rest = np.array([row for row in rows if int(row) not in chosen], dtype=np.intp)
        uniform = rng.choice(rest, size=self.k - len(chosen), replace=False)
        return [int(row) for row in uniform] + list(chosen)

    def blocks(self) -> frozenset[str]:
        shares = {"text": self.text, "image": self.image, "state": self.state}
        return frozenset(name for name, share in shares.items() if math.floor(share * self.k))
