"""`fixed` finds the demonstrations that serve the train questions, with few prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from leverplus_core import AnswerLogprob, Bank, Demonstration, EvalSet, Features, Ids, Image, Question
from leverplus_core.seeding import rng
from leverplus_selectors.fixed import FixedSelector

BANK = [Demonstration(f"d{i}", "?", Image(f"i{i}"), "yes") for i in range(40)]
TRAIN = [Question(f"t{i}", "?", Image(f"t{i}"), ("yes",)) for i in range(70)]
ASKED = [Question(f"q{i}", "?", Image(f"q{i}"), ("yes",)) for i in range(2)]
NONE = np.zeros((0, 0), np.float32)


class Answers:
    """Accuracies by (question, demonstrations)."""

    def __init__(self, accuracy: Mapping[tuple[str, Ids], float]) -> None:
        self.accuracy = accuracy
        self.asked: list[tuple[Question, Ids]] = []

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[AnswerLogprob]:
        raise AssertionError("no log-probability is needed")

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[tuple[str, str, float]]:
        self.asked += rows
        return [("", "", self.accuracy.get((q.id, ids), 0.0)) for q, ids in rows]


def eval_set(asked: Sequence[Question] = ASKED, train: Sequence[Question] = TRAIN, seed: int = 0) -> EvalSet:
    return EvalSet(
        asked, {q.id: [] for q in asked}, {}, Features(NONE, NONE), Bank.without_features(BANK), "append", seed, train
    )


def orders(sets: int, seed: int = 0) -> list[list[str]]:
    return [[BANK[i].id for i in rng(seed, "fixed demonstrations", k).permutation(40)] for k in range(sets)]


def test_the_set_that_serves_the_train_questions_best_is_shown_with_every_question() -> None:
    for best in range(8):
        table = Answers({
            (q.id, tuple(order[:n])): 0.9 if k == best else 0.1 * (k % 3)
            for q in TRAIN for k, order in enumerate(orders(8)) for n in (2, 3)
        })  # fmt: skip
        found = FixedSelector().select(eval_set(), (2, 3), table)
        assert found == {n: [tuple(orders(8)[best][:n])] * 2 for n in (2, 3)}


def test_halving_finds_what_asking_everything_finds_unless_the_best_is_in_the_worse_half_at_first() -> None:
    """Four sets on nine questions: all answer three, the better two nine."""
    agreed = 0
    for seed in range(40):
        draw = np.random.default_rng(seed)
        sets = orders(4, seed)
        scores = draw.choice([0.0, 0.5, 1.0], (4, 9))
        table = Answers({(TRAIN[j].id, tuple(sets[k][:2])): scores[k, j] for k in range(4) for j in range(9)})
        found = FixedSelector(sets=4, questions=9).select(eval_set(seed=seed), (2,), table)[2][0]
        early = scores[:, :3].sum(1)
        kept = sorted(sorted(range(4), key=lambda k: -early[k])[:2])
        best = max(kept, key=lambda k: scores[k].sum())
        assert found == tuple(sets[best][:2])
        agreed += scores[best].sum() == scores.sum(1).max()
        assert len(table.asked) == 4 * 3 + 2 * 6
    assert agreed >= 25  # of 40 tables of pure chance; 36 prompts would always find it


def test_its_prompts_are_those_that_it_plans() -> None:
    """Eight sets answer 10 questions, four 28, two 64: 80 + 72 + 72, where all on all would be 512."""
    table = Answers({})
    part = FixedSelector()
    part.select(eval_set(), (1, 2), table)
    assert Counter(len(ids) for _, ids in table.asked) == part.cost((1, 2), 32).once == {1: 224, 2: 224}
    assert part.cost((1, 2), 32).answers == {1: 1, 2: 1}
    assert {q.id for q, _ in table.asked} == {q.id for q in TRAIN[:64]}
    few = Answers({})
    part.select(eval_set(train=TRAIN[:5]), (1,), few)
    assert len(few.asked) <= 224 and {q.id for q, _ in few.asked} == {q.id for q in TRAIN[:5]}
    assert FixedSelector(sets=1).cost((1, 2), 32).once == {}


@pytest.mark.parametrize("train", [TRAIN, []])
def test_ties_go_to_the_first_set(train: Sequence[Question]) -> None:
    assert FixedSelector().select(eval_set(train=train), (2,), Answers({}))[2] == [tuple(orders(8)[0][:2])] * 2


def test_a_demonstration_with_the_image_of_the_question_gives_way_to_the_next() -> None:
    order = orders(1)[0]
    shares = Question("q", "?", Image("i" + order[0][1:]), ("yes",))
    itself = Question(order[1], "?", Image("elsewhere"), ("yes",))
    found = FixedSelector(sets=1).select(eval_set([shares, itself, ASKED[0]]), (2,), Answers({}))[2]
    assert found == [(order[1], order[2]), (order[0], order[2]), (order[0], order[1])]
    table = Answers({})
    FixedSelector().select(eval_set(train=[Question(d.id, "?", d.image, ("yes",)) for d in BANK]), (3,), table)
    assert all(q.id not in ids and len(ids) == 3 for q, ids in table.asked)
