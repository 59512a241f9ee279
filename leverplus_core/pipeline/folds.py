"""Cross-fitting: every question is answered by a policy that saw neither it nor its image.

`evaluation.split: cross_fit` deals the images of both splits into folds. A question's pool has no demonstration of its
own fold, and the policy of a fold learns from the questions of the other folds, with what their pools hold of these
folds. Every question is then evaluated once, by the policy of its fold, and all of them can teach (sample splitting
with every part used in turn: Chernozhukov et al. 2018, "Double/debiased machine learning", section 3).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from leverplus_core.errors import DataError
from leverplus_core.metrics import most_frequent
from leverplus_core.plugins.contracts import Bank, Dataset, Features, Size, Split
from leverplus_core.records import Demonstration, Question
from leverplus_core.seeding import rng
from leverplus_core.selector.feature_set import FeatureSet

WHOLE = ""
"""The name of the only fold where nothing is cross-fitted: it holds nothing out. Also the folder of its policy."""


class _Sequence(Protocol):
    @property
    def demonstrations(self) -> tuple[str, ...]: ...


S = TypeVar("S", bound=_Sequence)


@dataclass(frozen=True)
class Folds:
    """The folds by name, and the fold of each question and demonstration by id; one fold, `WHOLE`, by default."""

    names: tuple[str, ...] = (WHOLE,)
    questions: Mapping[str, str] = field(default_factory=dict)
    demonstrations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset, count: int, data_seed: int) -> Folds:
        """Deal the images in a seeded order, one fold after the other.

        Raises DataError where there are fewer images than folds.
        """
        questions, demonstrations = dataset.questions("train"), dataset.demonstrations()
        images = sorted({q.image.id for q in questions} | {d.image.id for d in demonstrations})
        if len(images) < count:
            raise DataError(
                f"{len(images)} images cannot be dealt into {count} folds.", f"Set evaluation.folds to {len(images)}."
            )
        names = tuple(f"fold-{k}" for k in range(count))
        order = rng(data_seed, "folds").permutation(len(images))
        of_image = {images[i]: names[place % count] for place, i in enumerate(order)}
        return cls(
            names,
            {q.id: of_image[q.image.id] for q in questions},
            {d.id: of_image[d.image.id] for d in demonstrations},
        )

    @property
    def crossed(self) -> bool:
        """Whether there is more than the one fold that holds nothing out."""
        return self.names != (WHOLE,)

    def of_question(self, question_id: str) -> str:
        """The fold whose policy answers a question."""
        return self.questions[question_id] if self.crossed else WHOLE

    def answered(self, fold: str, question_ids: Sequence[str]) -> list[str]:
        """Those that the policy of `fold` answers."""
        return [q for q in question_ids if self.of_question(q) == fold]

    def teaches(self, fold: str, question_id: str) -> bool:
        """Whether the policy of `fold` may learn from a question."""
        return not self.crossed or self.questions[question_id] != fold

    def shows(self, fold: str, demonstration_id: str) -> bool:
        """Whether the policy of `fold`, and a question of `fold`, may see a demonstration."""
        return not self.crossed or self.demonstrations[demonstration_id] != fold

    def lessons(self, fold: str, rows: Mapping[str, Sequence[S]], questions: Container[str]) -> dict[str, list[S]]:
        """What the policy of `fold` may learn from: sequences of these `questions` of other folds, with demonstrations
        of other folds alone. Questions that are left without any are left out."""
        if not self.crossed:
            return {q: list(found) for q, found in rows.items()}
        kept = {
            q: [row for row in found if all(self.shows(fold, d) for d in row.demonstrations)]
            for q, found in rows.items()
            if q in questions and self.teaches(fold, q)
        }
        return {q: found for q, found in kept.items() if found}

    def bank(self, fold: str, bank: Bank) -> Bank:
        """The demonstrations that questions of `fold` may be shown."""
        if not self.crossed:
            return bank
        rows = [i for i, d in enumerate(bank.demonstrations) if self.shows(fold, d.id)]
        return Bank([bank.demonstrations[i] for i in rows], feature_rows(bank.features, rows))

    def seen(
        self, fold: str, features: FeatureSet, pools: Mapping[str, Sequence[str]], least: int
    ) -> tuple[FeatureSet, dict[str, Sequence[str]]]:
        """The features and pools that the policy of `fold` learns from, without a row of that fold.

        Questions whose pools are left with fewer than `least` demonstrations are left out.
        """
        bank = [i for i, d in enumerate(features.demonstration_ids) if self.shows(fold, d)]
        asked = [i for i, q in enumerate(features.question_ids) if self.teaches(fold, q)]
        kept = FeatureSet(
            [features.demonstration_ids[i] for i in bank],
            feature_rows(features.demonstrations, bank),
            [features.question_ids[i] for i in asked],
            feature_rows(features.questions, asked),
        )
        left = {q: [d for d in pool if self.shows(fold, d)] for q, pool in pools.items() if self.teaches(fold, q)}
        return kept, {q: pool for q, pool in left.items() if len(pool) >= least}


def feature_rows(features: Features, rows: Sequence[int]) -> Features:
    """The features of some rows, in this order."""
    if not len(features.text):  # a bank for rules that read no features
        return features
    blocks = (features.image, features.text, features.answer, features.state)
    return Features(*(None if block is None else block[rows] for block in blocks))  # type: ignore[arg-type]


class BothSplits(Dataset):
    """The questions of both splits of a dataset as train questions: all of them are asked, and all may be shown."""

    inner: Dataset

    def questions(self, split: Split) -> Sequence[Question]:
        """Train questions are those of both splits; there are no validation questions."""
        return (*self.inner.questions("train"), *self.inner.questions("validation")) if split == "train" else ()

    def demonstrations(self) -> Sequence[Demonstration]:
        """The dataset's own, and each validation question with its most frequent answer.

        Raises DataError where a validation question has the id of a demonstration.
        """
        own = self.inner.demonstrations()
        ids = {d.id for d in own}
        if twice := next((q for q in self.inner.questions("validation") if q.id in ids), None):
            raise DataError(
                f"question {twice.id} of the validation split has the id of a demonstration.", "Make the ids unique."
            )
        more = (
            Demonstration(q.id, q.text, q.image, most_frequent(q.answers)) for q in self.inner.questions("validation")
        )
        return (*own, *more)

    def identity(self) -> dict[str, object]:
        """That of the dataset, marked."""
        return {"both splits": self.inner.identity()}

    def expected_size(self) -> Size | None:
        """The dataset's, both splits together; None where it is not known before the files are there."""
        size = self.inner.expected_size()
        if size is None:
            return None
        return Size(size.train + size.validation, 0, size.train_images + size.validation_images, 0)

    def note(self) -> str:
        """The dataset's, and how its questions are used."""
        return " ".join(filter(None, (self.inner.note(), "The questions of both splits are cross-fitted.")))
