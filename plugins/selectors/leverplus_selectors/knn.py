"""`text_knn` and `image_knn`: the nearest demonstrations of the question's pool.

Nearest-neighbor retrieval of demonstrations: KATE, Liu et al. 2022, arXiv:2101.06804.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from leverplus_core import BaselineSelector, EvalSet, Ids, Measure, nearest


class _KnnSelector(BaselineSelector):
    block: ClassVar[str]

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        similarity = eval_set.similarity[self.block]
        chosen: dict[int, list[Ids]] = {n: [] for n in shots}
        for question in eval_set.questions:
            pool = eval_set.pools[question.id]
            for n in shots:
                positions = nearest(similarity[question.id], n, eval_set.order)
                chosen[n].append(tuple(pool[p] for p in positions))
        return chosen


class TextKnnSelector(_KnnSelector):
    """The demonstrations of the pool whose question is nearest by text, the nearest next to the question."""

    block: ClassVar[str] = "text"


class ImageKnnSelector(_KnnSelector):
    """The demonstrations of the pool whose image is nearest, the nearest next to the question."""

    block: ClassVar[str] = "image"
