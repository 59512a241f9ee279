"""What a selector is: a rule that needs no training, or a maker of networks that learn. No torch.

A recipe's `selector` is a `TrainableSelector`; `evaluation.baselines` names `BaselineSelector`s. Both are parts of the
kind `selector`.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from leverplus_core.errors import PluginError
from leverplus_core.plugins.contracts import Bank, Features, Floats, Measure, Part
from leverplus_core.recipes.settings import Order
from leverplus_core.records import Ids, Question

PromptCounts = Mapping[int, int]
"""Number of demonstrations -> prompts with so many."""


@dataclass(frozen=True)
class EvalSet:
    """The questions that every method answers, in evaluation order, and what a selector may know of them.

    `features` are aligned with `questions`, `bank` holds all demonstrations with theirs; `similarity` has, for each
    block of features ("image", "text", "state"), a question id -> (K,) cosines with the demonstrations of its pool.
    `order` is the prompt's: what the sequence that is returned means. Draw random numbers from `seed` and the
    question's id, so that a question's demonstrations do not depend on the other questions. `train` are train
    questions, none of them evaluated, in a seeded order: a baseline may measure them to choose.
    """

    questions: Sequence[Question]
    pools: Mapping[str, Sequence[str]]
    similarity: Mapping[str, Mapping[str, Floats]]
    features: Features
    bank: Bank
    order: Order
    seed: int
    train: Sequence[Question] = ()


@dataclass(frozen=True)
class SelectionCost:
    """Prompts for one evaluation question: to select and to answer, by number of demonstrations."""

    answers: PromptCounts
    logprobs: PromptCounts = field(default_factory=dict)
    demonstrations: int = 0
    """Distinct demonstrations of its pool that the question may be shown with."""
    outside: int = 0
    """Distinct demonstrations of the rest of the bank that the question may be shown with."""
    once: PromptCounts = field(default_factory=dict)
    """Answers of train questions that are asked to select: once, however many questions are evaluated."""
    once_logprobs: PromptCounts = field(default_factory=dict)
    """Log-probabilities that are asked likewise."""


class Selector(Part):
    """Chooses the demonstrations that are shown with a question: see `BaselineSelector` and `TrainableSelector`."""


class BaselineSelector(Selector):
    """A rule that chooses without training; evaluated under its own name.

    Obligations: for each question and number of shots a tuple of distinct demonstration ids in the order of choice,
    never one that shows the question's image; the same whatever the other questions.
    """

    shows_fewer: ClassVar[bool] = False
    """Whether it may show fewer demonstrations than it is asked for, never more."""
    learns: ClassVar[bool] = False
    """Whether it trains on `EvalSet.train`: then it is evaluated beside the baselines, and is none that is to beat."""

    @abstractmethod
    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        """For each number of shots, the demonstrations of each question, aligned with `eval_set.questions`.

        `measure` calls the model: of questions in `eval_set.train`, to choose by what it answers. An oracle, which
        knows the true answers, asks those that are evaluated.
        """

    def blocks(self) -> frozenset[str]:
        """The blocks of features that are read: of "image", "text" and "state"; none by default."""
        return frozenset()

    def shot_counts(self, shots: Sequence[int]) -> Sequence[int]:
        """The numbers of demonstrations that this rule shows when `shots` are evaluated; all of them by default."""
        return shots

    def cost(self, shots: Sequence[int], pool: int) -> SelectionCost:
        """Prompts for one question with a pool of `pool` demonstrations; by default one answer per number of shots."""
        counts = self.shot_counts(shots)
        return SelectionCost({n: 1 for n in counts}, demonstrations=max(counts, default=0))


@dataclass(frozen=True)
class FeatureWidths:
    """Columns of each block of features: of the question, and of a demonstration, which also has its answer.

    An answer is as wide as a text where both were encoded here (None); imported features have no answers (0). `state`
    is 0 where the recipe has no hidden states.
    """

    image: int
    text: int
    state: int = 0
    answer: int | None = None

    @property
    def question(self) -> dict[str, int]:
        """Block -> width, in the order of the columns."""
        return {"image": self.image, "text": self.text, "state": self.state}

    @property
    def candidate(self) -> dict[str, int]:
        """Block -> width, in the order of the columns."""
        return {**self.question, "answer": self.text if self.answer is None else self.answer}


class TrainableSelector(Selector):
    """Makes the network that learns to choose demonstrations.

    Obligations of the network: the probabilities over all sequences of one length sum to 1; they do not depend on the
    rest of the batch; shuffling the pool shuffles the answer and nothing else. Weights are drawn from torch's
    generator, and tensors are made on the batch's device, whose values a step does not read.
    """

    network: ClassVar[str] = ""
    """"module:Class" of a `leverplus_core.Policy`, made of this part and the widths; imported when it is needed."""

    def policy(self, widths: FeatureWidths) -> Any:
        """A new `leverplus_core.Policy` for features of these widths. Raises PluginError without a `network`."""
        module, _, name = self.network.partition(":")
        if not name:
            raise PluginError(f"selector {type(self).__name__} names no network.", "Set `network` to 'module:Class'.")
        return getattr(importlib.import_module(module), name)(self, widths)
