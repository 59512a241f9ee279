"""VQA accuracy against a table from the official evaluator, and against its definition written out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from leverplus_core.errors import DataError
from leverplus_core.metrics import CONTRACTIONS, accuracy, distinct_answers, most_frequent, normalize, text_similarity

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "vqa.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("raw", "expected"), GOLDEN["normalized"])
def test_normalise_as_the_official_evaluator(raw: str, expected: str) -> None:
    assert normalize(raw) == expected


@pytest.mark.parametrize("row", GOLDEN["accuracy"], ids=lambda row: f"{row['prediction']}-{row['accuracy']:.2f}")
def test_accuracy_as_the_official_evaluator(row: dict[str, object]) -> None:
    assert accuracy(str(row["prediction"]), list(row["answers"])) == pytest.approx(row["accuracy"], abs=1e-9)  # type: ignore[call-overload]


@pytest.mark.parametrize(("count", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_accuracy_of_ten_is_exact(count: int, expected: float) -> None:
    assert accuracy("yes", ["yes"] * count + ["no"] * (10 - count)) == expected


def test_five_answers_doubled_score_six_tenths_or_one() -> None:
    for people, expected in ((0, 0.0), (1, 0.6), (2, 1.0), (5, 1.0)):
        doubled = [answer for answer in ["kite"] * people + ["x", "y", "z", "v", "w"][people:] for _ in range(2)]
        assert accuracy("A kite.", doubled) == expected


def test_accuracy_is_the_mean_over_annotators_left_out_in_turn() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        answers = [str(word) for word in draw.choice(["red", "blue", "two", "the red", "2"], size=draw.integers(1, 14))]
        for said in ("red", "2", "green"):
            told = [normalize(answer) for answer in answers]
            each = [min(1, sum(a == said for a in told[:i] + told[i + 1 :]) / 3) for i in range(len(told))]
            assert accuracy(said, answers) == pytest.approx(sum(each) / len(each))


def test_accuracy_does_not_depend_on_the_order_of_annotators() -> None:
    answers = ["cat", "dog", "cat", "", "hen", "cat", "dog", "pig", "cow", "ox"]
    assert accuracy("cat", answers) == accuracy("cat", answers[::-1]) == 0.9


@pytest.mark.parametrize("nothing", ["", "  ", "\n"])
def test_an_empty_prediction_scores_nothing_even_if_people_left_theirs_blank(nothing: str) -> None:
    assert accuracy(nothing, ["", "", "", "", "the", "the", "?", "?", "x", "x"]) == 0.0


def test_an_answer_of_which_nothing_is_left_is_equal_to_itself_alone() -> None:
    """The official evaluator gives 1.0 to all three: it normalizes nothing where all annotators agree."""
    for answer in ("A", "?", "the"):
        assert accuracy(answer, [answer] * 10) == 1.0
    assert accuracy("a", ["A"] * 10) == 1.0
    assert accuracy("the", ["A"] * 10) == accuracy("", ["?"] * 10) == 0.0
    assert accuracy("A", ["A", "A", "B", "B", "B", "the", "the", "the", "", "?"]) == 0.6
    assert accuracy("B", ["A", "A", "B", "B", "B", "the", "the", "the", "", "?"]) == 0.9
    assert distinct_answers(["A"] * 6 + ["?"] * 4) == {"A": 1.0, "?": 1.0}
    assert text_similarity("A", ["a", "?"]) == 1.0 and text_similarity("?", ["a"]) == 0.0


def test_no_answers_is_an_error() -> None:
    for action in (lambda: accuracy("cat", []), lambda: most_frequent([]), lambda: most_frequent(["", " "])):
        with pytest.raises(DataError, match="without answers"):
            action()


def test_contractions_hold_the_whole_table() -> None:
    # The reference has 120 entries: 4 with capitals (never met after lower-casing), 2 that map to themselves.
    assert len(CONTRACTIONS) == 114
    assert all(word == word.lower() and word != form for word, form in CONTRACTIONS.items())


def test_distinct_answers_have_the_weight_of_their_annotators() -> None:
    assert distinct_answers(["Red", "red.", "red", "a blue", "blue"]) == {"Red": 1.0, "a blue": 2 / 3}
    assert distinct_answers(["two", "2", "2", "2", "ten"]) == {"2": 1.0, "ten": 1 / 3}
    okvqa = ["pony tail"] * 4 + ["braid"] * 4 + ["bun"] * 2  # five answers, doubled
    assert distinct_answers(okvqa) == {"pony tail": 1.0, "braid": 1.0, "bun": 2 / 3}
    assert distinct_answers(["cat"]) == {"cat": 1 / 3}
    assert distinct_answers(["", "cat", "?"]) == {"cat": 1 / 3, "?": 1 / 3}
    assert distinct_answers(["the", "the", "?"]) == {"the": 2 / 3, "?": 1 / 3}
    with pytest.raises(DataError):
        distinct_answers([" ", ""])


def test_most_frequent_takes_the_first_of_equals_and_no_blanks() -> None:
    assert most_frequent(["b", "a", "a", "c"]) == "a"
    assert most_frequent(["b", "a", "a", "b"]) == "b"
    assert most_frequent(["", "", "", "c", "c", "b"]) == "c"
    assert most_frequent(["A dog"]) == "A dog"
