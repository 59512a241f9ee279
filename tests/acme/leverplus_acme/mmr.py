"""A baseline: maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from leverplus_core import BaselineSelector, EvalSet, Ids, Measure


class MmrSelector(BaselineSelector):
    """Demonstrations whose question is similar to the query and not to those chosen before."""

    weight: float = Field(0.5, ge=0, le=1, description="weight of the similarity to the query")

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        row = {str(demonstration): i for i, demonstration in enumerate(eval_set.bank.ids)}
        chosen: dict[int, list[Ids]] = {n: [] for n in shots}
        for question in eval_set.questions:
            pool = eval_set.pools[question.id]
            similarity = eval_set.similarity["text"][question.id]  # (K,)
            text = eval_set.bank.features.text[[row[demonstration] for demonstration in pool]]  # (K, D)
            taken: list[int] = []
            while len(taken) < min(max(shots), len(pool)):
                redundancy = (text @ text[taken].T).max(1) if taken else np.zeros(len(pool))
                score = self.weight * similarity - (1 - self.weight) * redundancy
                score[taken] = -np.inf
                taken.append(int(score.argmax()))
            for n in shots:
                chosen[n].append(tuple(pool[i] for i in taken[:n]))
        return chosen
