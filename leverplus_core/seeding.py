"""Seeds are derived, not global: the same stage and question draw the same numbers at any worker count or resume."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(seed: int, *keys: str | int) -> int:
    """A 64-bit seed from the run's seed and the names of what is drawn, e.g. `derive(0, "pool", question.id)`."""
    text = "\x1f".join(str(key) for key in (seed, *keys))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *keys: str | int) -> np.random.Generator:
    """A generator of its own for `keys`."""
    return np.random.default_rng(derive(seed, *keys))
