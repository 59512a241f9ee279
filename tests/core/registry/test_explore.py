from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from leverplus_core.errors import RegistryError
from leverplus_core.records import Image, Prediction, Question
from leverplus_core.registry.explore import Condition
from leverplus_core.registry.registry import Registry, RunRecord

TEXTS = ["What COLOR?", "哪个颜色?", "100% of _it_", "a b"]
SCORES = {("random", 1): [1.0, 0.0, 0.5, 0.3], ("rce", 2): [0.0, 1.0, 1.0, 0.3]}
RIGHT = ("random", 1, 0.5, None)
WRONG = ("rce", 2, None, 0.5)
ANY = ("rce", 2, None, None)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        f"sqlite:///{tmp_path / 'r.db'}" if request.param == "sqlite" else request.getfixturevalue("new_postgresql")()
    )


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    with Registry(url) as registry:
        for run, dataset in (("a", "w"), ("b", "v")):  # the second has the same ids with other texts
            registry.begin_run(RunRecord(run, run, "f", "d", "m", 0, dataset_fingerprint=dataset))
            texts = TEXTS if run == "a" else ["other"] * 4
            asked = [
                Question(f"q{i}", text, Image(f"i{i}", f"{i}.png", "a cup"), ("x",)) for i, text in enumerate(texts)
            ]
            registry.record_questions(run, asked)
            for (method, shots), scores in SCORES.items():
                rows = [(i, Prediction(method, shots, f"q{i}", f"i{i}", (), "", "", s)) for i, s in enumerate(scores)]
                registry.record_cell_predictions(run, method, shots, rows, [4])
        yield registry


@pytest.mark.parametrize(
    ("conditions", "words", "n", "expected"),
    [
        ([RIGHT], [], 4, [0, 2]),
        ([RIGHT, WRONG], [], 4, [0]),
        ([RIGHT], [], 2, [0]),
        ([ANY], ["color"], 4, [0]),
        ([ANY], ["颜色"], 4, [1]),
        ([ANY], ["%", "_IT_"], 4, [2]),
        ([ANY], ["b", "a"], 4, [3]),
        ([ANY], ["q3"], 4, [3]),
        ([ANY], ["cup"], 4, [0, 1, 2, 3]),
        ([ANY], ["other"], 4, []),
    ],
)
def test_questions_that_fit_by_outcome_and_by_words(
    registry: Registry, conditions: list[Condition], words: list[str], n: int, expected: list[int]
) -> None:
    assert registry.matching("a", ("random", 1), conditions, words, n) == expected


def test_listed_questions_have_the_texts_of_their_own_dataset(registry: Registry) -> None:
    rows, scores = registry.listed("a", ("rce", 2), [3, 1], [("rce", 2), ("random", 1), ("absent", 9)])
    assert [(row["position"], row["question_id"], row["text"], row["image_path"]) for row in rows] == [
        (1, "q1", TEXTS[1], "1.png"), (3, "q3", TEXTS[3], "3.png"),
    ]  # fmt: skip
    assert rows[0]["answers"] == ["x"]
    assert scores == {
        ("rce", 2, "q1"): 1.0, ("rce", 2, "q3"): 0.3, ("random", 1, "q1"): 0.0, ("random", 1, "q3"): 0.3,
    }  # fmt: skip


def test_answers_in_another_order_belong_together_by_their_question(registry: Registry) -> None:
    """As those of two logs of another program may be: the second left q0 out."""
    rows = [
        (i, Prediction("log", 0, q, q, (), "", "", s))
        for i, (q, s) in enumerate((("q3", 1.0), ("q1", 1.0), ("q2", 0.0)))
    ]
    registry.record_cell_predictions("a", "log", 0, rows, [3])
    assert registry.matching("a", ("random", 1), [("log", 0, 0.5, None)], [], 4) == [1, 3]
    assert registry.matching("a", ("random", 1), [("log", 0, None, 0.5), RIGHT], [], 4) == [2]
    assert registry.listed("a", ("random", 1), [1, 3], [("log", 0)])[1] == {
        ("log", 0, "q1"): 1.0,
        ("log", 0, "q3"): 1.0,
    }


def test_opened_to_be_read_it_answers_and_refuses_to_write(registry: Registry, url: str) -> None:
    with Registry(url, read_only=True) as reader:
        assert reader.matching("a", ("rce", 2), [RIGHT], [], 4) == [0, 2]
        with pytest.raises(RegistryError):
            reader.label_run("a", "a note")
    assert registry.labels() == {}
