"""`random`: demonstrations drawn uniformly from the question's pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leverplus_core import BaselineSelector, EvalSet, Ids, Measure, rng


class RandomSelector(BaselineSelector):
    """Uniform from the pool; the sequence of two shots begins with that of one."""

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        chosen: dict[int, list[Ids]] = {n: [] for n in shots}
        for question in eval_set.questions:
            pool = eval_set.pools[question.id]
            order = rng(eval_set.seed, "random method", question.id).permutation(len(pool))
            for n in shots:
                chosen[n].append(tuple(pool[i] for i in order[:n]))
        return chosen
