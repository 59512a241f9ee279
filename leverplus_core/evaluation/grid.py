"""The evaluation grid: method x shots x sample size, every method on the same questions.

Evaluation questions stand in one seeded order; the sample of size n is its first n questions, so that samples are
nested (100 in 200 in 400) and each question is answered once per method and number of shots.
"""

from __future__ import annotations

from collections.abc import Sequence

from leverplus_core.recipes.settings import EvaluationSettings
from leverplus_core.records import Ids, Prediction, Question
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.seeding import rng

Predictions = list[tuple[int, Prediction]]
"""(position in the evaluation order, prediction)"""


def evaluation_order(questions: Sequence[Question], settings: EvaluationSettings, seed: int) -> list[Question]:
    """The questions of the largest sample, in nested order; a size beyond the data means all of it."""
    largest = min(max(settings.sizes), len(questions))
    if settings.order == "first":
        return list(questions[:largest])
    order = rng(seed, "evaluation order").permutation(len(questions))
    return [questions[i] for i in order[:largest]]


def sample_sizes(settings: EvaluationSettings, available: int) -> list[int]:
    """The sizes that the data can fill; a larger one becomes all of the data."""
    return sorted({min(size, available) for size in settings.sizes})


def predict(
    method: str,
    shots: int,
    selected: Sequence[Ids],
    questions: Sequence[Question],
    scorer: Scorer,
    doing: str = "evaluate",
) -> Predictions:
    """The model's answers to the questions with the demonstrations that `method` selected for each.

    `doing` begins the line that progress shows.
    """
    rows = list(zip(questions, selected, strict=True))
    answers = scorer.answers(rows, f"{doing} {method}, {shots} shot{'' if shots == 1 else 's'}")
    return [
        (i, Prediction(method, shots, q.id, q.image.id, ids, raw, prediction, accuracy, scorer.copied(prediction, ids)))
        for i, ((q, ids), (raw, prediction, accuracy)) in enumerate(zip(rows, answers, strict=True))
    ]
