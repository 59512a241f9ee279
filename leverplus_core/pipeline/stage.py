"""What a stage of the pipeline is: what it reads, what its result depends on, what it does and what it costs."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from leverplus_core.errors import DataError
from leverplus_core.metrics import TASKS
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.question_sets import SetSizes
from leverplus_core.plugins.contracts import Part, Size, SupportsPlanning
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.records import Demonstration, Prediction, Question
from leverplus_core.selector.base import SelectionCost

PromptCounts = Mapping[int, int]
"""Number of demonstrations -> prompts with so many."""

METHOD_PROMPTS = "method_prompts"
"""In the metadata of a stage: method -> the distinct prompts that led to it, None where that is not known."""


class StageReport(Protocol):
    """Where a stage tells what should be known before it has finished, or again when its result is reused."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """A training epoch has ended; epoch 0 is the policy as it came."""

    def validation_questions(self, ids: Iterable[str]) -> None:
        """The questions that chose the epoch of the policy."""

    def questions(self, questions: Sequence[Question], demonstrations: Iterable[Demonstration]) -> None:
        """What the ids in the predictions stand for."""

    def evaluation(self, split: str, questions: Sequence[Question], methods: Sequence[str]) -> None:
        """The evaluation questions, in order, before the first of `methods` answers them; `split` says whose they are:
        "validation", "held_out" or "cross_fit"."""

    def predictions(
        self, method: str, shots: int, predictions: Sequence[tuple[int, Prediction]], sizes: Sequence[int]
    ) -> None:
        """All answers of (method, shots) as (position in the evaluation order, prediction); cells for these sizes."""


@dataclass(frozen=True)
class StageCost:
    """What a stage costs at most: prompts by number of demonstrations, and images that it may encode, by split."""

    logprobs: PromptCounts = field(default_factory=dict)
    answers: PromptCounts = field(default_factory=dict)
    images: tuple[int, int] = (0, 0)
    """Distinct train and validation images that the model may see."""
    encoded: int = 0
    """Images that an encoder without the model encodes."""


@dataclass(frozen=True)
class Planning:
    """What the cost of a stage follows from: the recipe, counts of the dataset, and what is known of the model.

    `note` says where the counts are from when they are not from the files.
    """

    context: RunContext
    size: Size
    image_tokens: int | None = None
    cached_image_bytes: int = 0
    note: str = ""
    true_answers: float = 1.0
    """True answers whose probability counts, a question: the mean of the train split, where there are several."""

    @classmethod
    def of(cls, context: RunContext, look_at_images: bool = True) -> Planning:
        """From a composed recipe, without weights; without a look at the files of images nothing is known of their
        tokens. Raises DataError when the dataset is neither there nor of a known
        size, or nothing would be asked of a model."""
        if context.offline:
            raise DataError(
                "a run on imported features asks no model: there is nothing to plan.", "Set imported.features=false."
            )
        note, images, answers = "", {}, 1.0
        references = TASKS[context.recipe.task].references[context.recipe.scoring.reference]
        try:
            rows = context.dataset.questions("train"), context.dataset.questions("validation")
        except DataError as e:
            known = context.dataset.expected_size()
            if known is None:
                raise
            size, note = known, f"The dataset is not there ({e.what.rstrip('.')}): its official counts are used."
            if context.recipe.scoring.reference == "all":
                answers, note = 10.0, f"{note} Ten distinct answers a question are assumed."
        else:
            size = Size(*map(len, rows), *(len({q.image.id for q in split}) for split in rows))
            images = {q.image.id: q.image for split in rows for q in split}
            answers = sum(len(references(q.answers)) for q in rows[0]) / max(len(rows[0]), 1)
        model = context.model
        if not look_at_images or not isinstance(model, SupportsPlanning):
            return cls(context, size, note=note, true_answers=answers)
        tokens, encoded = model.image_tokens(list(images.values())), model.cached_image_bytes()
        return cls(context, size, tokens, encoded, note, answers)

    @property
    def recipe(self) -> Recipe:
        """The recipe that is planned."""
        return self.context.recipe

    @property
    def pool(self) -> int:
        """Demonstrations in a pool."""
        return self.context.sampler.k

    @property
    def encoder_uses_model(self) -> bool:
        """Whether features come from the model itself."""
        return self.context.encoder.needs_model

    @property
    def hidden_states(self) -> int | None:
        """Demonstrations before each question whose hidden state is a feature; None without hidden states."""
        return self.context.encoder.hidden_states

    @property
    def stops(self) -> bool:
        """Whether the selector learns when to stop."""
        return bool(getattr(self.context.selector, "stop", False))

    @property
    def sets(self) -> SetSizes:
        """How many questions are searched, proposed for and evaluated. Raises DataError as `SetSizes.of`."""
        return SetSizes.of(self.recipe, self.size.train, self.size.validation)

    def measured(self, per_question: PromptCounts, budget: int | None = None) -> StageCost:
        """The cost of measuring so many sequences per question that is proposed for: an answer each and, where anything
        reads them, the log-probabilities of the true answers, and those without demonstrations.

        The beam search of a question has measured each demonstration of its pool alone, unless it screens the pool, and
        the question without any.
        """
        questions = self.sets.proposed
        searched = self.context.searches and self.recipe.scoring.beam_search.screen is None
        new = max(questions - self.sets.searched, 0) if searched else questions
        sequences = {shots: questions * count for shots, count in per_question.items()}
        true_answers = self.true_answers if self.context.measures_probabilities else 0.0
        if budget is not None and (1 + true_answers) * sum(sequences.values()) > budget:
            sequences = {max(sequences): int(budget / (1 + true_answers))}
        logprobs = {n: count if n > 1 else min(count, new * per_question[n]) for n, count in sequences.items()}
        if sequences:
            logprobs[0] = new
        images = min(self.size.train_images, new * (self.pool + 1)) if sequences else 0
        asked = {n: count for n, count in logprobs.items() if count} if true_answers else {}
        return StageCost(self.logprobs(asked), sequences, (images, 0))

    def logprobs(self, rows: PromptCounts) -> PromptCounts:
        """The log-probabilities that so many sequences cost: one for each true answer that counts."""
        return {n: math.ceil(count * self.true_answers) for n, count in rows.items()}

    def answering(self, methods: Iterable[SelectionCost], questions: int, of_train: bool) -> StageCost:
        """The cost of methods that each answer so many questions, of the train split or of the validation split."""
        rows: Counter[int] = Counter()
        answers: Counter[int] = Counter()
        shown = outside = images_once = 0
        for cost in methods:
            for total, counts in ((rows, cost.logprobs), (answers, cost.answers)):
                total.update({n: count * questions for n, count in counts.items()})
            # What is asked once (a fold) shows train questions, each with as many demonstrations as its prompt has.
            folds = self.recipe.evaluation.folds if self.context.cross_fit else 1
            for total, counts in ((rows, cost.once_logprobs), (answers, cost.once)):
                once = {n: count * folds for n, count in counts.items()}
                total.update(once)
                images_once += sum((n + 1) * count for n, count in once.items())
            shown += cost.demonstrations
            outside += cost.outside
        size, demonstrations = self.size, questions * (min(shown, self.pool) + outside) + images_once
        images = (min(size.train_images, demonstrations), min(size.validation_images, questions))
        if of_train:
            images = (min(size.train_images, demonstrations + questions), 0)
        return StageCost(self.logprobs(rows), answers, images)


class Stage(Part):
    """One step from a recipe to its result, with a folder of its own that other runs share.

    A stage reads contents ("features", "pools", "sequences", "candidates", "groups", "policy"), each from the last
    stage before it that provides it, or "@NAME", the result of one stage. Its fingerprint follows from its name, what
    `depends` returns, and the fingerprints of what it reads: nothing else may decide its result.
    """

    name: str
    """The name in recipes, folders, the registry and `run --until`."""

    provides: ClassVar[str] = ""
    """The content that this stage's folder holds; '' for none that others read."""
    after: ClassVar[str] = "balance"
    """For a stage of a plugin: the stage behind which it runs."""

    def enabled(self, context: RunContext) -> bool:
        """Whether the recipe has a use for this stage."""
        return True

    def reads(self, context: RunContext) -> Sequence[str]:
        """The contents that `run` is given. One that no stage provides is left out."""
        return ()

    def depends(self, context: RunContext) -> object:
        """The settings and identities of parts that decide the result beside what is read; JSON-able."""
        return None

    @abstractmethod
    def run(self, context: RunContext, inputs: Mapping[str, Path], out: Path, report: StageReport) -> dict[str, Any]:
        """Write the result into the folder `out` and return metadata about it, JSON-able.

        `inputs` holds the folder of each content that `reads` names. What was written before a kill may be found in
        `out` again. Raises a LeverplusError for anything that the user can fix.
        """

    def lacks(self, context: RunContext, inputs: Mapping[str, Path]) -> str:
        """Why there is nothing for `run` to work on, as a sentence without its end; '' where there is something.

        A training that says so is left out, and the run goes on without its method. `inputs` are those of `run`.
        """
        return ""

    def suffices(self, context: RunContext, out: Path) -> bool:
        """Whether the finished folder `out` holds all that this recipe needs: always, where `depends` decides it all.

        Where it does not, `run` is called again and adds what is lacking; it changes nothing that is there.
        """
        return True

    def replay(self, context: RunContext, out: Path, report: StageReport) -> None:
        """Report what `run` reported, from the finished folder `out`: its result is reused by another run."""

    def cost(self, planning: Planning) -> StageCost:
        """An upper bound of what `run` asks of the model, from settings and counts alone."""
        return StageCost()
