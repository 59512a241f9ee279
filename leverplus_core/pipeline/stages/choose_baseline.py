"""`choose_baseline`: which baseline is best, on train questions that nothing learns from and nothing evaluates.

With cross-fitting every question is evaluated, so that each fold has the baseline that is best on the other folds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from leverplus_core.io import fingerprint
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.methods import answer, baseline_method, eval_set
from leverplus_core.pipeline.stage import Planning, Stage, StageCost, StageReport
from leverplus_core.recipes.settings import ORACLE
from leverplus_core.records import Question
from leverplus_core.selector.base import BaselineSelector

Scores = dict[str, npt.NDArray[np.float64]]
"""Baseline -> each question's accuracy (N,), the mean over shots."""


class ChooseBaseline(Stage):
    """Evaluate the baselines on held-out train questions and name the best, the mean over shots being compared.

    What they answer stays in this stage's folder: these are not the questions of the evaluation. The oracle, which
    knows the true answers, is left out, and so is what learns.
    """

    name: str = "choose_baseline"

    def enabled(self, context: RunContext) -> bool:
        wanted = context.recipe.evaluation.baseline_questions > 0
        return wanted and not context.offline and bool(_candidates(context))

    def reads(self, context: RunContext) -> Sequence[str]:
        return ("features", "pools")

    def depends(self, context: RunContext) -> object:
        recipe, sets = context.recipe, context.question_sets
        baselines = [[name, context.identity_of("selector", name, part)] for name, part in _candidates(context).items()]
        asked = [context.model_identity(), recipe.decoding.model_dump(mode="json"), recipe.data_seed]
        questions = fingerprint([[q.id for q in of] for of in (sets.baseline, sets.learned)])
        # Without held-out questions, those that choose the epoch decide: which they are is the seed's to say.
        of_seed = None if sets.baseline else [recipe.evaluation.baseline_questions, _epochs(context)]
        return [asked, baselines, recipe.evaluation.shots, questions, of_seed]

    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        folds = context.folds
        source, questions = self._questions(context, inputs)
        # With cross-fitting each fold is told the train questions of the others alone.
        asked_of = set() if folds.crossed else {q.id for q in questions}
        train = [q for q in context.question_sets.learned if q.id not in asked_of]
        if folds.crossed and questions:  # they are the questions that are evaluated
            report.evaluation(context.recipe.evaluation.split, questions, list(_candidates(context)))
        asked = eval_set(context, inputs, questions, train)
        scores: Scores = {}
        for name, baseline in _candidates(context).items() if questions else ():
            found = answer(baseline_method(context, name, baseline), asked, out, "try")
            rows = [[p.accuracy for _, p in predictions] for predictions in found.values()]
            scores[name] = np.mean(rows, axis=0)
        metadata: dict[str, Any] = {
            "best": _best(scores),
            "questions": len(questions),
            "source": source,
            "shots": list(context.recipe.evaluation.shots),
            "accuracies": {name: float(of.mean()) for name, of in scores.items()},
        }
        if folds.crossed:
            others = {fold: np.array([folds.teaches(fold, q.id) for q in questions]) for fold in folds.names}
            best = {fold: _best({name: of[rows] for name, of in scores.items()}) for fold, rows in others.items()}
            most = Counter(best.values())
            metadata |= {"best": max(scores, key=lambda name: most[name]), "by_fold": best}
        return metadata

    def cost(self, planning: Planning) -> StageCost:
        shots = planning.recipe.evaluation.shots
        costs = [baseline.cost(shots, planning.pool) for baseline in _candidates(planning.context).values()]
        sets = planning.sets
        most = min(planning.recipe.evaluation.baseline_questions, max(sets.searched, sets.proposed))
        return planning.answering(costs, sets.baseline or most, of_train=True)

    def _questions(self, context: RunContext, inputs: Mapping[str, Path]) -> tuple[str, Sequence[Question]]:
        """Where the questions are from, and the questions. Those that choose the epoch stand in where none is held out:
        the policies did not learn their weights from them."""
        sets = context.question_sets
        if sets.baseline:
            return "other_folds" if context.folds.crossed else "held_out", sets.baseline
        epoch = context.training(inputs).validation_ids([q.id for q in sets.learned])
        found = [q for q in sets.learned if q.id in epoch]
        return "validation_questions", found[: context.recipe.evaluation.baseline_questions]


def _best(scores: Scores) -> str | None:
    """The highest mean, the first listed of equal ones; None without questions."""
    means = {name: float(of.mean()) for name, of in scores.items()}
    return max(means, key=lambda name: means[name], default=None)


def _candidates(context: RunContext) -> dict[str, BaselineSelector]:
    return {name: part for name, part in context.baselines.items() if name != ORACLE and not part.learns}


def _epochs(context: RunContext) -> list[object]:
    return [context.recipe.seed, context.recipe.training.validation_fraction]
