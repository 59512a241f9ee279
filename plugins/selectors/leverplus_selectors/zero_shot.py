"""`zero_shot`: the question without demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leverplus_core import BaselineSelector, EvalSet, Ids, Measure


class ZeroShotSelector(BaselineSelector):
    """No demonstrations: what the model answers by itself."""

    def shot_counts(self, shots: Sequence[int]) -> Sequence[int]:
        return (0,)

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        return {0: [() for _ in eval_set.questions]}
