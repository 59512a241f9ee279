"""Which train questions are searched, proposed for and held out, and which questions are evaluated.

Train questions stand in one seeded order. The first `scoring.questions` are searched by InfoScore, the first
`scoring.candidates.questions` are proposed for and measured, and what stands behind both is *held out*: nothing learns
from it. Held-out questions are taken from the end of the order, so that recipes which learn from different numbers of
questions hold the same ones out: the first of them choose the best baseline, those behind them are evaluated where
`evaluation.split` is `held_out`. Nothing is thus ever chosen on a question that is evaluated.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from leverplus_core.errors import DataError
from leverplus_core.evaluation.grid import evaluation_order
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.records import Question
from leverplus_core.seeding import rng


@dataclass(frozen=True)
class SetSizes:
    """How many questions each set has, from the recipe and the counts of the dataset alone."""

    searched: int
    proposed: int
    held_out: int
    baseline: int
    """Held-out questions that choose the best baseline; with cross-fitting those that are evaluated."""
    evaluated: int

    @classmethod
    def of(cls, recipe: Recipe, train: int, validation: int) -> SetSizes:
        """Raises DataError where held-out questions are to be evaluated and none are left."""
        scoring = recipe.scoring
        searched = min(scoring.questions or train, train)
        wanted = scoring.candidates.questions
        proposed = searched if wanted is None else min(wanted, train)
        return cls.behind(recipe, searched, proposed, train - max(searched, proposed), train, validation)

    @classmethod
    def behind(
        cls, recipe: Recipe, searched: int, proposed: int, held_out: int, train: int, validation: int
    ) -> SetSizes:
        """The sizes where so many are searched, proposed for and held out. Raises DataError as `of`."""
        settings = recipe.evaluation
        baseline, available = min(settings.baseline_questions, held_out), validation
        if settings.split == "held_out":
            baseline = min(baseline, held_out // 2)  # whatever is held out, most of it is for the evaluation
            available = held_out - baseline
            if not available:
                raise DataError(
                    f"evaluation.split is held_out, and none of the {train} train questions is held out: {searched} "
                    f"are searched, {proposed} proposed for.",
                    "Lower scoring.questions and scoring.candidates.questions, or set evaluation.split=validation.",
                )
        evaluated = min(max(settings.sizes), train if settings.split == "cross_fit" else available)
        if settings.split == "cross_fit":
            baseline = evaluated if settings.baseline_questions else 0
        return cls(searched, proposed, held_out, baseline, evaluated)


@dataclass(frozen=True)
class QuestionSets:
    """The sets themselves. `searched` and `proposed` are in the order of the dataset, `held_out` from the end of the
    seeded order, `evaluated` in the order of evaluation."""

    searched: Sequence[Question]
    proposed: Sequence[Question]
    held_out: Sequence[Question]
    baseline: Sequence[Question]
    evaluated: Sequence[Question]
    learned: Sequence[Question]
    """Those searched or proposed for, in the seeded order. None is evaluated, but with cross-fitting each of them is:
    what teaches is then for the folds to say."""

    @property
    def asked(self) -> set[str]:
        """The ids of all questions that a stage may ask."""
        sets = (self.searched, self.proposed, self.baseline, self.evaluated, self.learned)
        return {q.id for questions in sets for q in questions}

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        train: Sequence[Question],
        validation: Sequence[Question],
        sequences: Collection[str] | None = None,
        candidates: Collection[str] | None = None,
    ) -> QuestionSets:
        """From the questions of both splits (cross-fitting: all of them in `train`).

        `sequences` and `candidates` are the ids of imported ones, which say themselves what they are about. Raises
        DataError as `SetSizes.of`, and where an imported question is not a train question.
        """
        settings = recipe.evaluation
        place = {q.id: i for i, q in enumerate(train)}
        if strange := sorted({*(sequences or ()), *(candidates or ())} - place.keys()):
            raise DataError(
                f"{len(strange)} imported questions are not train questions of the dataset, such as {strange[0]}.",
                "Name the dataset on which they were measured.",
            )
        ordered = [train[i] for i in rng(recipe.data_seed, "scored questions").permutation(len(train))]
        searched = (
            ordered[: recipe.scoring.questions] if sequences is None else [q for q in ordered if q.id in sequences]
        )
        if candidates is not None:
            proposed = [q for q in ordered if q.id in candidates]
            searched = proposed if sequences is None else searched
        else:
            wanted = recipe.scoring.candidates.questions
            proposed = searched if wanted is None else ordered[:wanted]
        taught = {q.id for q in (*searched, *proposed)}
        held_out = [q for q in reversed(ordered) if q.id not in taught]
        sizes = SetSizes.behind(recipe, len(searched), len(proposed), len(held_out), len(train), len(validation))
        baseline = held_out[: sizes.baseline]
        if settings.split == "held_out":
            evaluated = held_out[sizes.baseline :]
            if settings.order == "first":
                evaluated.sort(key=lambda q: place[q.id])
            evaluated = evaluated[: sizes.evaluated]
        else:
            evaluated = evaluation_order(
                train if settings.split == "cross_fit" else validation, settings, recipe.data_seed
            )
            baseline = evaluated[: sizes.baseline] if settings.split == "cross_fit" else baseline
        asked = set() if settings.split == "cross_fit" else {q.id for q in evaluated}
        return cls(
            sorted(searched, key=lambda q: place[q.id]),
            sorted(proposed, key=lambda q: place[q.id]),
            held_out,
            baseline,
            evaluated,
            [q for q in ordered if q.id in taught and q.id not in asked],
        )
