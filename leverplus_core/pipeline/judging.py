"""Which judge chooses the epochs of a recipe's trainings, what it depends on, and what it may ask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stage import Planning, StageCost
from leverplus_core.training.base import Trainer

if TYPE_CHECKING:
    from leverplus_core.training.base import Judge
    from leverplus_core.training.data import TrainingContext


def judge_shots(context: RunContext) -> Sequence[int]:
    """The numbers of demonstrations at which answers are asked."""
    return context.recipe.training.judge.shots or context.recipe.evaluation.shots


def asks(context: RunContext) -> bool:
    """Whether the judge asks the model: not where its questions cannot be asked."""
    return context.recipe.training.judge.by == "answers" and not context.offline


def judge_of(
    context: RunContext, training: TrainingContext, trainer: Trainer, known: Mapping[str, Sequence[Any]]
) -> Judge | None:
    """The judge of a training; `known` are all searched sequences, or all measured candidates, by question.

    None where no question is left for validation.
    """
    from leverplus_core.training.judge import by_answers, by_candidates, by_sequences

    validation = training.validation_ids(list(known))
    ids = [q for q in known if q in validation and known[q]]
    if not ids:
        return None
    if asks(context):
        questions = {q.id: q for q in context.dataset.questions("train")}
        beams = context.recipe.evaluation.num_beams
        asked = [questions[q] for q in ids]
        return by_answers(training, asked, context.scorer, judge_shots(context), beams, trainer)
    judged = {q: known[q] for q in ids}
    if trainer.learns_from == "sequences":
        return by_sequences(training, judged)
    if not any(c.demonstrations for group in judged.values() for c in group):
        return None
    return by_candidates(training, judged, trainer)


def judge_identity(context: RunContext) -> object:
    """What the choice of the epoch depends on beside the data and the trainer."""
    recipe = context.recipe
    if not asks(context):
        return recipe.training.judge.by
    shots = list(judge_shots(context))
    return [recipe.training.judge.by, shots, recipe.evaluation.num_beams, context.answer_identity()]


def judge_cost(planning: Planning, questions: int, epochs: int) -> StageCost:
    """What the judge of a training on so many questions asks at most, were every epoch to choose differently.

    The validation questions are drawn one by one: their number is at most four deviations above the expected one.
    """
    if not asks(planning.context) or not questions:
        return StageCost()
    share = planning.recipe.training.validation_fraction
    most = min(questions, math.ceil(share * questions + 4 * math.sqrt(questions * share * (1 - share))))
    evaluation = planning.recipe.evaluation
    folds = evaluation.folds if evaluation.split == "cross_fit" else 1
    answers = {n: folds * most * (epochs + 1) for n in judge_shots(planning.context)}
    return StageCost(answers=answers, images=(min(planning.size.train_images, most * (planning.pool + 1)), 0))
