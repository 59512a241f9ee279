"""Baselines that rank the whole bank: the nearest by features, and BM25 by words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from leverplus_core import (
    AnswerLogprob,
    Bank,
    DataError,
    Demonstration,
    EvalSet,
    Features,
    Ids,
    Image,
    Question,
    nearest_rows,
)
from leverplus_core.selector import ranking
from leverplus_selectors.bank_knn import BankKnnSelector
from leverplus_selectors.bm25 import Bm25Selector, bm25


class Nothing:
    """Refuses to be asked."""

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[AnswerLogprob]:
        raise AssertionError("nothing needs to be measured")

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[tuple[str, str, float]]:
        raise AssertionError("nothing needs to be measured")


NOTHING = Nothing()


def unit(rows: Sequence[Sequence[float]] | NDArray[np.floating]) -> NDArray[np.float32]:
    found = np.asarray(rows, np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def seen(
    bank: Sequence[Demonstration], asked: Sequence[Question], rows: Features, own: Features, order: str = "append"
) -> EvalSet:
    return EvalSet(asked, {q.id: [] for q in asked}, {}, own, Bank(bank, rows), order, 0)  # type: ignore[arg-type]


def demonstrations(count: int, per_image: int = 1) -> list[Demonstration]:
    return [Demonstration(f"d{i}", f"word{i % 5}?", Image(f"i{i // per_image}"), "yes") for i in range(count)]


def test_the_nearest_of_the_bank_by_hand() -> None:
    """Cosines with the question (1, 0): text 1, .8, .6, 0; image 0, .6, .8, 1."""
    text, image = unit([[1, 0], [4, 3], [3, 4], [0, 1]]), unit([[0, 1], [3, 4], [4, 3], [1, 0]])
    asked = [Question("q", "?", Image("q"), ("yes",))]
    given = seen(demonstrations(4), asked, Features(image, text), Features(unit([[1, 0]]), unit([[1, 0]])))
    choose = {by: BankKnnSelector(by=by).select(given, (1, 2), NOTHING) for by in ("text", "image", "text_image")}
    assert choose["text"] == {1: [("d0",)], 2: [("d1", "d0")]}  # the nearest next to the question
    assert choose["image"] == {1: [("d3",)], 2: [("d2", "d3")]}
    # z-scores: text (.4, .2, 0, -.6) / .374, image (-.6, 0, .2, .4) / .374: d1 and d2 tie in the sum, the first wins
    assert choose["text_image"] == {1: [("d1",)], 2: [("d2", "d1")]}


@pytest.mark.parametrize("by", ["text", "image", "state"])
def test_it_is_a_search_of_all_demonstrations_but_those_of_the_question_and_its_image(
    by: Literal["text", "image", "state"], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    bank = demonstrations(60, per_image=2)
    blocks = {name: unit(draw.normal(size=(60, 5))) for name in ("image", "text", "state")}
    rows = Features(blocks["image"], blocks["text"], None, blocks["state"])
    # Each question is a demonstration of the bank, or only shares its image, or neither.
    asked = [Question("d7", "?", Image("i3"), ("yes",)), Question("q1", "?", Image("i20"), ("yes",))]
    asked += [Question("d9", "?", Image("elsewhere"), ("yes",)), Question("q2", "?", Image("new"), ("yes",))]
    at = [7, 40, 9, 11]
    own = Features(blocks["image"][at], blocks["text"][at], None, blocks["state"][at])
    given = seen(bank, asked, rows, own, "prepend")
    found = BankKnnSelector(by=by).select(given, (3,), NOTHING)[3]
    for row, question, ids in zip(at, asked, found, strict=True):
        allowed = [i for i, d in enumerate(bank) if d.image.id != question.image.id and d.id != question.id]
        near = blocks[by] @ blocks[by][row]
        assert ids == tuple(f"d{i}" for i in sorted(allowed, key=lambda i: -near[i])[:3])
    monkeypatch.setattr(ranking, "CELLS", 60)  # one question at a time
    assert BankKnnSelector(by=by).select(given, (3,), NOTHING)[3] == found


def test_demonstrations_that_are_equal_tie_whatever_the_batch() -> None:
    rows = np.repeat(unit(np.random.default_rng(1).normal(size=(10, 33))), 7, axis=0)  # seven of each
    asked = unit(np.random.default_rng(2).normal(size=(13, 33)))
    hidden = [np.array([], np.intp)] * 13
    found = [near.tolist() for near in nearest_rows([(asked, rows)], hidden, 70)]
    for near in found:  # the seven of one row stand together, in their order in the bank
        assert all(group == list(range(group[0], group[0] + 7)) for group in np.array(near).reshape(10, 7).tolist())
    assert found == [next(nearest_rows([(asked[i : i + 1], rows)], hidden[:1], 70)).tolist() for i in range(13)]


def test_a_bank_with_too_few_demonstrations_of_other_images_is_refused() -> None:
    rows = unit(np.eye(3))
    asked = [Question("q", "?", Image("i0"), ("yes",))]
    given = seen(demonstrations(3), asked, Features(rows, rows), Features(rows[:1], rows[:1]))
    assert BankKnnSelector().select(given, (2,), NOTHING)
    with pytest.raises(DataError, match="question q: the bank has fewer than 3 demonstrations without its image"):
        BankKnnSelector().select(given, (3,), NOTHING)


def formula(documents: Sequence[str], query: str, k1: float, b: float) -> list[float]:
    """Robertson and Zaragoza 2009 with the idf of Lucene, word by word."""
    split: Callable[[str], list[str]] = lambda text: re.findall(r"\w\w+", text.lower())  # noqa: E731
    rows = [split(text) for text in documents]
    mean = sum(map(len, rows)) / len(rows)
    scores = []
    for row in rows:
        score = 0.0
        for word in split(query):
            having = sum(word in other for other in rows)
            f = row.count(word)
            idf = math.log(1 + (len(rows) - having + 0.5) / (having + 0.5))
            score += idf * f / (f + k1 * (1 - b + b * len(row) / mean))
        scores.append(score)
    return scores


def test_bm25_by_hand() -> None:
    """Of 3 documents of 2, 3 and 1 words one has 'red': idf log(1 + 2.5 / 1.5) = .981; the mean length is 2.

    The document of 2 words that has it: .981 * 1 / (1 + 1.5) = .392.
    """
    assert bm25(["red ball", "what is this", "ball"], 1.5, 0.75)(["Red?", "green"]).tolist() == [
        pytest.approx([0.3923, 0, 0], abs=1e-4), [0, 0, 0],
    ]  # fmt: skip


def test_bm25_is_its_formula() -> None:
    draw = np.random.default_rng(0)
    words = ["what", "colour", "is", "the", "ball", "cat", "where", "does", "it", "live"]
    documents = [" ".join(draw.choice(words, draw.integers(1, 9))) + "?" for _ in range(50)]
    queries = ["What colour is the ball?", "cat cat dog", "Zebra?", "?"]
    for k1, b in ((1.5, 0.75), (0.9, 0.0)):
        found = bm25(documents, k1, b)(queries)
        assert found == pytest.approx(np.array([formula(documents, query, k1, b) for query in queries]), abs=1e-5)


def test_bm25_ranks_the_bank_without_the_questions_image() -> None:
    texts = ["what is the red ball", "red ball", "green ball", "a cat", "red cat"]
    bank = [Demonstration(f"d{i}", text, Image(f"i{i}"), "yes") for i, text in enumerate(texts)]
    asked = [Question("q", "A red ball?", Image("i1"), ("yes",)), Question("q2", "?", Image("new"), ("yes",))]
    nothing = Features(np.zeros((5, 0), np.float32), np.zeros((5, 0), np.float32))
    found = Bm25Selector().select(seen(bank, asked, nothing, nothing, "prepend"), (1, 3), NOTHING)
    scores = formula(texts, "A red ball?", 1.5, 0.75)
    ranked = sorted((0, 2, 3, 4), key=lambda i: -scores[i])
    assert found[3][0] == tuple(f"d{i}" for i in ranked[:3]) and found[1][0] == ("d0",)
    assert found[3][1] == ("d0", "d1", "d2")  # no word in common: the order of the bank
    wordless = [Demonstration(f"d{i}", "?", Image(f"i{i}"), "yes") for i in range(3)]
    assert Bm25Selector().select(seen(wordless, asked[1:], nothing, nothing, "prepend"), (2,), NOTHING) == {
        2: [("d0", "d1")]
    }
