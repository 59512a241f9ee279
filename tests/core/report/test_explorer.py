from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leverplus_core.errors import RegistryError
from leverplus_core.records import Demonstration, Image, Prediction, Question
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.report.explorer import (
    Outcome,
    QuestionFilter,
    answered_cells,
    neighbors,
    question_at,
    question_detail,
    question_page,
)

TEXTS = [
    "What color is the hat?",
    "这是什么颜色?",
    "How many cats?",
    "50% of _what_?",
    "Which HAT is red?",
    "猫在哪里?",
]
RANDOM = [1.0, 0.0, 0.6, 0.5, 0.0, 1.0]
LEARNED = [0.0, 1.0, 0.6, 0.3, 0.0, 0.3]
BOTH = (("random", 1), ("rce", 1))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    registry.begin_run(RunRecord("abc", "demo", "f", "d", "m", 0, dataset_fingerprint="w"))
    asked = [Question(f"q{i}", text, Image(f"i{i}", f"p/{i}.png"), ("red", "blue")) for i, text in enumerate(TEXTS)]
    registry.record_questions("abc", asked, [Demonstration("d1", "which animal?", Image("i9", "p/9.png"), "cat")])
    for method, scores in (("rce", LEARNED), ("random", RANDOM)):
        rows = [
            (i, Prediction(method, 1, f"q{i}", f"i{i}", ("d1", "d2"), f" raw {i}", f"a {i}", score, i == 0))
            for i, score in enumerate(scores)
        ]
        registry.record_cell_predictions("abc", method, 1, rows, [3, 6])
    return registry


@pytest.fixture
def run(registry: Registry) -> dict[str, Any]:
    return registry.resolve("abc")


def positions(registry: Registry, run: dict[str, Any], wanted: QuestionFilter, **page: Any) -> list[int]:
    return [question.position for question in question_page(registry, run, wanted, **page).questions]


def fits(*outcomes: str, **more: Any) -> QuestionFilter:
    return QuestionFilter(tuple(map(Outcome.parse, outcomes)), **more)


def test_outcomes_are_conditions_on_accuracy_half_and_more_being_right(registry: Registry, run: dict[str, Any]) -> None:
    for outcomes, expected in {
        ("random@1:right",): [0, 2, 3, 5],
        ("random@1:right", "rce@1:wrong"): [0, 3, 5],
        ("random@1:wrong", "rce@1:right"): [1],
        ("random@1:wrong", "random@1:right"): [],
        (): [0, 1, 2, 3, 4, 5],
    }.items():
        assert positions(registry, run, fits(*outcomes)) == expected
    assert positions(registry, run, fits("random@1:right", n=3)) == [0, 2]


def test_search_finds_words_in_any_script_and_nothing_is_a_wildcard(registry: Registry, run: dict[str, Any]) -> None:
    for search, expected in {
        "the hat": [0], "RED hat": [4], "颜色": [1], "猫": [5], "%": [3], "_what_": [3], "_": [3], "q3": [3], "no": [],
    }.items():  # fmt: skip
        assert positions(registry, run, fits(search=search)) == expected
    assert positions(registry, run, fits("random@1:right", search="the hat")) == [0]


def test_pages_are_told_by_position_and_meet(registry: Registry, run: dict[str, Any]) -> None:
    wanted = fits("random@1:right")
    page = question_page(registry, run, wanted, limit=2)
    assert [q.position for q in page.questions] == [0, 2]
    assert (page.total, page.first, page.before, page.after) == (4, 1, None, 2)
    second = question_page(registry, run, wanted, after=page.after, limit=2)
    assert [q.position for q in second.questions] == [3, 5]
    assert (second.first, second.before, second.after) == (3, 3, None)
    assert question_page(registry, run, wanted, before=second.before, limit=2).questions == page.questions
    beyond = question_page(registry, run, wanted, after=99, limit=2)
    assert (beyond.questions, beyond.total, beyond.before, beyond.after) == ((), 4, 6, None)
    assert positions(registry, run, wanted, before=beyond.before, limit=2) == [3, 5]


def test_a_listed_question_has_what_was_recorded(registry: Registry, run: dict[str, Any]) -> None:
    question = question_page(registry, run, columns=[*BOTH, ("absent", 3)], limit=2).questions[1]
    assert (question.id, question.text, question.image_id, question.image_path) == ("q1", TEXTS[1], "i1", "p/1.png")
    assert question.answers == ("red", "blue") and question.accuracies == {("random", 1): 0.0, ("rce", 1): 1.0}


def test_neighbors_are_those_in_the_list(registry: Registry, run: dict[str, Any]) -> None:
    wanted = fits("random@1:right")
    for position, expected in {0: (None, 2, 1), 3: (2, 5, 3), 5: (3, None, 4), 1: (0, 2, None)}.items():
        found = neighbors(registry, run, wanted, position)
        assert (found.before, found.after, found.place, found.total) == (*expected, 4)
    assert question_at(registry, run, 3) == "q3" and question_at(registry, run, 6) is None


def test_a_question_has_all_that_each_method_did(registry: Registry, run: dict[str, Any]) -> None:
    found = question_detail(registry, run, "q0")
    assert (found.position, found.text, found.sizes, found.answers) == (0, TEXTS[0], (3, 6), ("red", "blue"))
    assert question_detail(registry, run, "q4").sizes == (6,)
    assert {(a.method, a.shots) for a in found.given} == set(answered_cells(registry, run)) == set(BOTH)
    given = found.given[-1]
    assert (given.method, given.raw_text, given.prediction, given.accuracy, given.copied) == (
        "rce", " raw 0", "a 0", 0.0, True,
    )  # fmt: skip
    known, unknown = given.demonstrations
    assert (known.text, known.answer, known.image_path) == ("which animal?", "cat", "p/9.png")
    assert unknown.id == "d2" and unknown.text is unknown.image_id is None


def test_a_run_without_answers_has_an_empty_list(registry: Registry) -> None:
    registry.begin_run(RunRecord("new", "new", "f", "d", "m", 0))
    new = registry.resolve("new")
    assert question_page(registry, new).questions == () and answered_cells(registry, new) == {}
    assert neighbors(registry, new, QuestionFilter(), 3).total == 0 and question_at(registry, new, 0) is None


def test_mistakes_are_one_line(registry: Registry, run: dict[str, Any]) -> None:
    for text in ("rce:right", "rce@1", "rce@1:maybe", "@1:right", "rce@-1:wrong", "rce@\u0661:right", ""):
        with pytest.raises(RegistryError, match="is no outcome"):
            Outcome.parse(text)
    assert str(Outcome.parse("sft+blank_images@2:wrong")) == "sft+blank_images@2:wrong"
    with pytest.raises(RegistryError, match=r"has no answers of rcf@1\. Did you mean 'rce@1'"):
        question_page(registry, run, fits("rcf@1:right"))
    with pytest.raises(RegistryError, match=r"answered no question 'q9'\. It answered q0, q1, q2 and others"):
        question_detail(registry, run, "q9")
