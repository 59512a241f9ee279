"""`text_knn`, `image_knn`, `state_knn`, `text_image_knn`: the nearest demonstrations of the question's pool.

Nearest-neighbor retrieval of demonstrations: KATE, Liu et al. 2022, arXiv:2101.06804. Both modalities count in MMICES,
Chen et al. 2023, arXiv:2311.18021: it keeps the demonstrations with the nearest images and ranks these by text, where
`text_image_knn` adds the two similarities, each in deviations from its mean over the pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from leverplus_core import BaselineSelector, EvalSet, Ids, Measure, RecipeError, nearest, summed


class _KnnSelector(BaselineSelector):
    read: ClassVar[tuple[str, ...]]

    def blocks(self) -> frozenset[str]:
        return frozenset(self.read)

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        if "state" in self.read and "state" not in eval_set.similarity:
            raise no_states("state_knn")
        chosen: dict[int, list[Ids]] = {n: [] for n in shots}
        for question in eval_set.questions:
            pool = eval_set.pools[question.id]
            near = summed([eval_set.similarity[block][question.id] for block in self.read])
            for n in shots:
                chosen[n].append(tuple(pool[p] for p in nearest(near, n, eval_set.order)))
        return chosen


class TextKnnSelector(_KnnSelector):
    """The demonstrations of the pool whose question is nearest by text, the nearest next to the question."""

    read: ClassVar[tuple[str, ...]] = ("text",)


class ImageKnnSelector(_KnnSelector):
    """The demonstrations of the pool whose image is nearest, the nearest next to the question."""

    read: ClassVar[tuple[str, ...]] = ("image",)


class StateKnnSelector(_KnnSelector):
    """The demonstrations of the pool whose hidden state is nearest, the nearest next to the question."""

    read: ClassVar[tuple[str, ...]] = ("state",)


class TextImageKnnSelector(_KnnSelector):
    """The demonstrations of the pool nearest by text and image together: the sum of both similarities' z-scores."""

    read: ClassVar[tuple[str, ...]] = ("text", "image")


def no_states(name: str) -> RecipeError:
    """The error of a selector that reads hidden states where there are none."""
    return RecipeError(
        f"{name} reads hidden states, and there are none.", "Set encoder.hidden_states, for example to 4."
    )
