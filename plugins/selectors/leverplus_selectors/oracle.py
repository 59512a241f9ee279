"""`oracle`: a search with the true answers, a lower bound of the best that a pool holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from leverplus_core import BaselineSelector, BeamSettings, EvalSet, Ids, Measure, SelectionCost, beam_search
from leverplus_core import beam_search_cost as search_cost


class OracleSelector(BaselineSelector):
    """A beam search by InfoScore whose sequences are all answered; the most accurate one counts.

    It knows the true answers: a lower bound of what the best selector could choose from the pool.
    """

    num_beams: int = Field(3, ge=1, description="sequences kept per number of shots")
    expand_top_k: int | None = Field(8, ge=1, description="extend only by the demonstrations that were best alone")

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        kept = beam_search(measure, eval_set.questions, eval_set.pools, self._search(shots))
        best: dict[int, list[Ids]] = {}
        for n in range(1, max(shots) + 1):
            rows = [(q, k.demonstrations) for q in eval_set.questions for k in kept[q.id][n - 1]]
            accuracies = iter([accuracy for _, _, accuracy in measure.answers(rows, f"oracle, {n} shots")])
            best[n] = []
            for question in eval_set.questions:
                group = [(next(accuracies), k.demonstrations) for k in kept[question.id][n - 1]]
                best[n].append(max(group, key=lambda found: found[0])[1])  # ties: the higher InfoScore, which is first
        return {n: best[n] for n in shots}

    def cost(self, shots: Sequence[int], pool: int) -> SelectionCost:
        # It answers what its search kept, and one of these is its choice.
        logprobs = search_cost(pool, self._search(shots))
        answers = {n: min(self.num_beams, logprobs[n]) for n in range(1, max(shots) + 1)}
        return SelectionCost(answers, logprobs, pool)

    def _search(self, shots: Sequence[int]) -> BeamSettings:
        return BeamSettings(num_beams=self.num_beams, shots=max(shots), expand_top_k=self.expand_top_k)
