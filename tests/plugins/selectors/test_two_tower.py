"""`two_tower` learns which demonstrations of the bank help, and says beforehand what that costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from leverplus_core import AnswerLogprob, Bank, Demonstration, EvalSet, Features, Ids, Image, Question
from leverplus_core.testing import check_baseline
from leverplus_selectors.bank_knn import BankKnnSelector
from leverplus_selectors.two_tower import TwoTowerSelector

GROUPS, EACH, WIDTH = 4, 30, 16


def world(seed: int = 0) -> tuple[list[Demonstration], Features]:
    """120 demonstrations in four groups, told by four columns of the image; twelve louder ones are noise."""
    draw = np.random.default_rng(seed)
    count = GROUPS * EACH
    image = draw.normal(size=(count, WIDTH)).astype(np.float32)
    image[:, :GROUPS] = 1.5 * np.eye(GROUPS, dtype=np.float32)[np.arange(count) % GROUPS]
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    text = draw.normal(size=(count, WIDTH)).astype(np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    bank = [Demonstration(f"d{i}", f"question {i}", Image(f"i{i}"), "yes") for i in range(count)]
    return bank, Features(image, text, text)


class Groups:
    """A demonstration of the question's group makes the true answer probable, any other does nothing."""

    def __init__(self) -> None:
        self.rows: list[tuple[Question, Ids]] = []

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[AnswerLogprob]:
        self.rows += rows
        return [AnswerLogprob(math.log(0.9 if any(helps(q, d) for d in ids) else 0.1), 1) for q, ids in rows]

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[tuple[str, str, float]]:
        raise AssertionError("no answer is needed")


def helps(question: Question, demonstration: str) -> bool:
    return int(demonstration[1:]) % GROUPS == int(question.id[1:]) % GROUPS


def eval_set(asked: range, train: range, features: Features, bank: list[Demonstration]) -> EvalSet:
    def questions(rows: range) -> list[Question]:
        return [Question(f"q{i}", bank[i].text, bank[i].image, ("yes",)) for i in rows]

    own = Features(features.image[asked], features.text[asked])
    return EvalSet(questions(asked), {}, {}, own, Bank(bank, features), "append", 0, questions(train))


def share(found: Sequence[Ids], asked: EvalSet) -> float:
    """The share of the demonstrations that are of the question's group."""
    return float(np.mean([helps(q, d) for q, ids in zip(asked.questions, found, strict=True) for d in ids]))


def test_it_learns_what_helps_where_similarity_does_not_tell() -> None:
    bank, features = world()
    asked = eval_set(range(80, 120), range(80), features, bank)
    part = TwoTowerSelector(questions=80, k=16, epochs=20)
    learned = share(part.select(asked, (2,), Groups())[2], asked)
    assert share(BankKnnSelector().select(asked, (2,), Groups())[2], asked) < 0.6
    assert learned > 0.85


def test_untrained_it_compares_text_and_image_and_asks_nothing() -> None:
    bank, features = world()
    measure = Groups()
    asked = eval_set(range(80, 120), range(0), features, bank)
    found = TwoTowerSelector().select(asked, (1, 3), measure)
    assert not measure.rows
    rows = [np.concatenate([_unit(block - block.mean(0)) for block in (features.image, features.text)], axis=1)]
    for question, one, three in zip(asked.questions, found[1], found[3], strict=True):
        at = int(question.id[1:])
        scores = rows[0] @ rows[0][at]
        scores[at] = -np.inf  # the question itself
        best = [f"d{i}" for i in np.argsort(-scores, kind="stable")[:3]]
        assert one == (best[0],) and three == tuple(reversed(best)), "the best next to the question"


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_its_prompts_are_those_that_it_plans_each_question_with_demonstrations_of_other_images() -> None:
    bank, features = world()
    measure = Groups()
    part = TwoTowerSelector(questions=7, k=8, epochs=1)
    part.select(eval_set(range(80, 82), range(80), features, bank), (1,), measure)
    assert Counter(len(ids) for _, ids in measure.rows) == part.cost((1,), 32).once_logprobs == {0: 7, 1: 56}
    assert len({(q.id, ids) for q, ids in measure.rows}) == 63
    assert all(ids != (f"d{q.id[1:]}",) for q, ids in measure.rows)


@pytest.mark.parametrize(
    "settings", [{}, {"questions": 4, "epochs": 2}, {"chance": 1.0, "epochs": 2}, {"questions": 0}]
)
def test_it_keeps_the_contract(settings: dict[str, float]) -> None:
    check_baseline(TwoTowerSelector(**settings))  # type: ignore[arg-type]
