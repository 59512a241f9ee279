"""Checks of selectors: those that are trained, and baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from leverplus_core.plugins.contracts import (
    Features,
    allowed,
)
from leverplus_core.records import AnswerLogprob, Ids, Image, Question
from leverplus_core.selector.base import BaselineSelector, EvalSet, FeatureWidths, TrainableSelector
from leverplus_core.testing.parts import TOLERANCE, check_part, returns
from leverplus_core.testing.records import (
    tiny_bank,
    unit_rows,
)

if TYPE_CHECKING:
    pass


def check_selector(part: TrainableSelector) -> None:
    """Probabilities sum to 1, whatever the batch; a shuffled pool gives the shuffled answer; beams hold no repeats."""
    import torch

    from leverplus_core.selector.policy import Batch, Blocks

    check_part(part)
    torch.manual_seed(0)
    widths = FeatureWidths(image=3, text=3)
    policy = part.policy(widths).eval()
    draw = torch.Generator().manual_seed(1)
    query, rows, near = (torch.randn(*size, generator=draw) for size in ((3, 6), (3, 4, 9), (3, 4, 2)))
    question = Blocks(query, widths.question)
    batch = Batch(question, Blocks(rows, widths.candidate), near)
    pairs = torch.tensor(list(permutations(range(4), 2))).expand(3, -1, -1)
    with torch.no_grad():
        choices = policy.step_log_probs(batch, pairs)[0].sum(-1)
        assert torch.allclose(choices.exp().sum(1), torch.ones(3), atol=TOLERANCE), "probabilities must sum to 1"
        alone = torch.cat([policy.step_log_probs(batch.rows(i, i + 1), pairs[:1])[0].sum(-1) for i in range(3)])
        assert torch.allclose(alone, choices, atol=TOLERANCE), "a question's probabilities depend on the batch"
        order = torch.tensor([2, 0, 3, 1])
        shuffled = Batch(question, Blocks(rows[:, order], widths.candidate), near[:, order])
        turned = policy.step_log_probs(shuffled, order.argsort()[pairs])[0].sum(-1)
        assert torch.allclose(turned, choices, atol=TOLERANCE), "a shuffled pool must give the shuffled answer"
    positions, _ = policy.beam_search(batch, 3, 4)
    assert all(len(set(row)) == 3 for beams in positions.tolist() for row in beams), "a sequence has no repeats"


class _NeverRight:
    """Measures without a model: no answer is right, and longer sequences are less probable. Notes what is asked."""

    def __init__(self) -> None:
        self.asked_logprobs: set[tuple[Question, Ids]] = set()
        self.asked_answers: set[tuple[Question, Ids]] = set()

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[AnswerLogprob]:
        self.asked_logprobs.update(rows)
        return [AnswerLogprob(-1.0 - len(ids), 1) for _, ids in rows]

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[tuple[str, str, float]]:
        self.asked_answers.update(rows)
        return [("no", "no", 0.0) for _ in rows]


def check_baseline(part: BaselineSelector) -> None:
    """Distinct demonstrations of the right number, none with the question's image, whatever the other questions.

    It asks no more to select than `cost` says: each prompt counts once.
    """
    check_part(part)
    query, bank = tiny_bank()
    questions = [query.question, Question("x1", "another question?", Image("elsewhere"), ("yes",) * 10)]
    train = [Question(f"t{i}", f"question {i}?", bank.demonstrations[i].image, ("yes",) * 10) for i in range(3, 9)]
    pool = [bank.demonstrations[row].id for row in allowed(query, bank)][:6]
    rows = dict(zip(("q0", "x1"), unit_rows(np.random.default_rng(1), 2, 8), strict=True))

    def eval_set(asked: Sequence[Question]) -> EvalSet:
        similarity = {q.id: np.linspace(1, 0, len(pool), dtype=np.float32) for q in asked}
        own = np.stack([rows[q.id] for q in asked])
        blocks = dict.fromkeys(("image", "text", "state"), similarity)
        return EvalSet(
            asked, {q.id: pool for q in asked}, blocks, Features(own, own, state=own), bank, "append", 0, train
        )

    np.random.seed(1)
    measure = _NeverRight()
    both = part.select(eval_set(questions), (1, 2), measure)
    np.random.seed(7)  # a part that reads this global state would now select others
    alone = part.select(eval_set(questions[:1]), (1, 2), _NeverRight())
    counts = part.shot_counts((1, 2))
    assert sorted(both) == sorted(counts), f"select() gives {sorted(both)} shots, shot_counts() says {sorted(counts)}"
    shows = {d.id: d.image.id for d in bank.demonstrations}
    returns("selector", part, "shot_counts", counts)
    returns("selector", part, "blocks", part.blocks())
    for n, selected in both.items():
        assert len(selected) == len(questions), f"one sequence per question, not {len(selected)}"
        for question, ids in zip(questions, selected, strict=True):
            assert len(ids) == len(set(ids)), f"{n} distinct demonstrations, not {ids}"
            assert len(ids) == n or (part.shows_fewer and len(ids) < n), f"{n} distinct demonstrations, not {ids}"
            assert all(d in shows for d in ids), f"demonstrations of the bank, not {ids}"
            assert all(shows[d] != question.image.id for d in ids), "a demonstration shows the question's own image"
        assert selected[0] == alone[n][0], "a question's demonstrations depend on seed and question alone"
    returns("selector", part, "select", both, eval_set=eval_set(questions), shots=(1, 2))
    cost = part.cost((1, 2), len(pool))
    returns("selector", part, "cost", cost)
    assert set(counts) <= set(cost.answers), "cost() has an answer for each number of shots"
    for what, asked, each, once in (
        ("log-probabilities", measure.asked_logprobs, cost.logprobs, cost.once_logprobs),
        ("answers", measure.asked_answers, cost.answers, cost.once),
    ):
        for n, count in Counter(len(ids) for _, ids in asked).items():
            planned = len(questions) * each.get(n, 0) + once.get(n, 0)
            assert count <= planned, f"cost() allows {planned} {what} of {n} demonstrations, select() asks {count}"
        assert all(shows[d] != q.image.id for q, ids in asked for d in ids), "what is measured shows its own image"
