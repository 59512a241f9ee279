"""The nearest of a pool or bank, and the order in which they are shown."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core.selector.ranking import nearest


@given(st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 0.5000001, 2.0]), max_size=30), st.integers(0, 31))
def test_the_nearest_are_the_first_of_a_stable_sort(similarity: list[float], shots: int) -> None:
    ranked = sorted(range(len(similarity)), key=lambda i: -similarity[i])[:shots]
    assert nearest(np.array(similarity), shots, "prepend") == tuple(ranked)
    assert nearest(np.array(similarity), shots, "append") == tuple(ranked[::-1])
