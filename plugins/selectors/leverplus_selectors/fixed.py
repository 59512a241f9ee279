"""`fixed`: one set of demonstrations for every question, chosen on train questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from pydantic import Field

from leverplus_core import BaselineSelector, Demonstration, EvalSet, Ids, Measure, Question, SelectionCost, rng


class FixedSelector(BaselineSelector):
    """The best of several random sets of demonstrations on train questions, the same for every question asked.

    Successive halving (Jamieson and Talwalkar, AISTATS 2016, arXiv:1502.07943): all sets answer a few train questions,
    the better half answers more, until one is left; the last two have answered all. A demonstration that shows the
    image of the question asked gives way to the next one of its set's random order.
    """

    sets: int = Field(8, ge=1, description="random sets of demonstrations for each number of shots")
    questions: int = Field(64, ge=1, description="train questions that the last two sets answer")

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        bank = eval_set.bank.demonstrations
        orders = [
            [bank[i] for i in rng(eval_set.seed, "fixed demonstrations", k).permutation(len(bank))]
            for k in range(self.sets)
        ]
        chosen: dict[int, Sequence[Ids]] = {}
        for n in shots:
            best = self._best(orders, n, eval_set.train, measure)
            chosen[n] = [_shown(best, n, question) for question in eval_set.questions]
        return chosen

    def cost(self, shots: Sequence[int], pool: int) -> SelectionCost:
        asked, before = 0, 0
        for kept, upto in self._rounds(self.questions):
            asked, before = asked + kept * (upto - before), upto
        return SelectionCost(
            {n: 1 for n in shots}, outside=max(shots, default=0), once={n: asked for n in shots if asked}
        )

    def _best(
        self, orders: Sequence[Sequence[Demonstration]], shots: int, train: Sequence[Question], measure: Measure
    ) -> Sequence[Demonstration]:
        """The order whose first demonstrations serve the first train questions best; ties to the first order."""
        left = list(range(len(orders)))
        total, before = dict.fromkeys(left, 0.0), 0
        for kept, upto in self._rounds(len(train[: self.questions])):
            left = sorted(sorted(left, key=lambda k: -total[k])[:kept])
            asked = train[before:upto]
            rows = [(question, _shown(orders[k], shots, question)) for k in left for question in asked]
            accuracies = iter([accuracy for _, _, accuracy in measure.answers(rows, f"fixed, {shots} shots")])
            for k in left:
                total[k] += sum(islice(accuracies, len(asked)))
            before = upto
        return orders[max(left, key=lambda k: total[k])]

    def _rounds(self, questions: int) -> Iterator[tuple[int, int]]:
        """(sets that answer, questions that they have answered by its end) of each round.

        Half as many sets answer twice as many further questions, so that every round costs about the same.
        """
        rounds = (self.sets - 1).bit_length()  # halvings until one is left
        kept = self.sets
        for done in range(1, rounds + 1):
            yield kept, -(-questions * (2**done - 1) // (2**rounds - 1))
            kept = (kept + 1) // 2


def _shown(order: Sequence[Demonstration], shots: int, question: Question) -> Ids:
    """The first demonstrations of the order that may be shown with the question."""
    fit = (d.id for d in order if d.image.id != question.image.id and d.id != question.id)
    return tuple(islice(fit, shots))
