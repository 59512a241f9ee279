"""Samples are nested and seeded; the nearest stands next to the question."""

from __future__ import annotations

import numpy as np

from leverplus_core.evaluation.grid import evaluation_order, sample_sizes
from leverplus_core.recipes.settings import EvaluationSettings
from leverplus_core.records import Image, Question
from leverplus_core.selector.ranking import nearest

ROWS = [Question(str(i), "?", Image(str(i)), ("x",)) for i in range(50)]


def test_samples_are_nested_seeded_and_not_the_first_rows() -> None:
    small, large = EvaluationSettings(sizes=(10,)), EvaluationSettings(sizes=(10, 30))
    ten, thirty = evaluation_order(ROWS, small, 0), evaluation_order(ROWS, large, 0)
    assert thirty[:10] == ten and len(thirty) == 30
    assert ten != ROWS[:10] and evaluation_order(ROWS, small, 1) != ten
    assert evaluation_order(ROWS, EvaluationSettings(sizes=(10,), order="first"), 0) == ROWS[:10]


def test_sizes_beyond_the_data_mean_all_of_it() -> None:
    settings = EvaluationSettings(sizes=(20, 100, 400))
    assert len(evaluation_order(ROWS, settings, 0)) == 50
    assert sample_sizes(settings, 50) == [20, 50]


def test_the_nearest_stands_next_to_the_question() -> None:
    assert nearest(np.array([0.1, 0.9, 0.5, 0.9]), 3) == (2, 3, 1)  # ties go to the pool's order
    # Where each new demonstration is put before the others, the first one chosen stands next to the question.
    assert nearest(np.array([0.1, 0.9, 0.5, 0.9]), 3, "prepend") == (1, 3, 2)
