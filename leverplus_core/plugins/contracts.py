"""The contracts: what a plugin's part is, and the one or two methods of each kind.

A part is a frozen pydantic model: its fields are its settings, so that YAML `sampler: {name: mixed, k: 32}` is
`model_validate`, provenance is `model_dump` and the fingerprint follows from both. Weights go into a
`functools.cached_property`. Unknown settings are refused. `leverplus_core.testing` has the contract tests.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from leverplus_core.bounds import Settings
from leverplus_core.errors import DataError
from leverplus_core.metrics import most_frequent
from leverplus_core.records import (
    AnswerLogprob,
    Candidate,
    Decoding,
    Demonstration,
    Ids,
    Image,
    Prompt,
    Question,
)

Floats = NDArray[np.float32]


Split = Literal["train", "validation"]


Measurement = Literal["logprob", "info_score", "text_similarity"]
"""What a `Candidate` may lack."""
MEASUREMENTS: frozenset[Measurement] = frozenset(get_args(Measurement))


class Part(Settings):
    """Settings, frozen. Subclasses add fields with defaults and a docstring whose first line is shown to users."""

    model_config = ConfigDict(ignored_types=(cached_property,))

    def identity(self) -> dict[str, object]:
        """What must be equal for two parts to give equal results: the settings, plus content that they point to.

        A part whose result does not depend on a setting (a batch size, a device) leaves that setting out; one
        that reads files adds their content hash. JSON-able.
        """
        return self.model_dump(mode="json")

    def check_machine(self) -> None:
        """Raises a LeverplusError for what the part needs and this machine lacks: a device, a checkpoint.

        Called before a run's first prompt, and by `validate`: nothing is loaded.
        """
        return


@dataclass(frozen=True)
class Size:
    """How many questions and distinct images the splits of a dataset have."""

    train: int
    validation: int
    train_images: int
    validation_images: int


class Dataset(Part):
    """Questions by split and the demonstrations to choose from (made from the train split only).

    Obligations: ids are unique within a split; the same settings give the same rows in the same order; train and
    validation questions are distinct; every question has at least one answer. Raises DataError otherwise.
    """

    @abstractmethod
    def questions(self, split: Split) -> Sequence[Question]:
        """The questions of a split, always in the same order. Raises DataError for files that cannot be used."""

    def demonstrations(self) -> Sequence[Demonstration]:
        """What may be shown: by default each train question with its most frequent answer, under its own id."""
        return tuple(Demonstration(q.id, q.text, q.image, most_frequent(q.answers)) for q in self.questions("train"))

    def note(self) -> str:
        """What a reader of a result must know about the protocol; '' when it is the dataset's standard one."""
        return ""

    def expected_size(self) -> Size | None:
        """The size where it is known before the files are there, so that a run can be planned; None otherwise."""
        return None


class Model(Part):
    """A vision-language model that scores and generates answers.

    Obligations: results do not depend on how a batch is made up (float32: to 1e-4), on the order of prompts, or on
    what was asked before; one result per prompt, in order. An image that cannot be read raises DataError with its path.
    """

    def check_image(self, image: Image) -> None:
        """Raises DataError for an image that lacks what is read of it: a file, or a caption. No file is opened."""
        return

    @abstractmethod
    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> list[AnswerLogprob]:
        """Log-probability of `answers[i]` as the continuation of `prompts[i]`.

        With `end_mark` the token that ends an answer counts as one more token of it: the sum is then
        log p(answer) + log p(end | answer). Without it "red" is as probable as all answers that begin with it. Raises
        DataError where the model cannot say it.
        """

    @abstractmethod
    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """The raw text that follows each prompt, special tokens removed."""

    def supports_logprob(self) -> bool:
        """Whether `logprob` can be asked. Without it a run searches nothing and measures candidates by their answers.

        Asked before the first prompt; a server may be asked, but no weights are loaded.
        """
        return True

    def most_beams(self) -> int | None:
        """The largest `num_beams` that `generate` takes; None where it takes any. Asked before the first prompt."""
        return None


class SupportsHiddenStates(ABC):
    """Mixin of a `Model` that shows its hidden state, for `encoder.hidden_states`."""

    @abstractmethod
    def last_hidden_state(self, prompts: Sequence[Prompt]) -> Floats:
        """(N, D) what the output layer reads at the position where the answer to each prompt begins."""


class SupportsLookahead(ABC):
    """Mixin of a `Model` that can begin its next call while a device computes the one before it."""

    @abstractmethod
    def expect(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> None:
        """Told before a call of `logprob`: the call after it will have these arguments.

        A hint that changes no result. Nothing is raised here: what is wrong with the prompts, their own call says.
        """


class SupportsEmbeddings(ABC):
    """Mixin of a `Model` with image and text features of its own, for the encoder `vlm`."""

    @abstractmethod
    def embed_images(self, images: Sequence[Image]) -> Floats:
        """(N, D) unit rows, one per image. Raises DataError with the path of an image that cannot be read."""

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """(N, D) unit rows, one per text."""


class SupportsPlanning(ABC):
    """Mixin of a `Model` that can say what a run will cost before any weights are loaded."""

    @abstractmethod
    def image_tokens(self, images: Sequence[Image]) -> int | None:
        """The largest number of tokens that one of `images` takes in a prompt (of any image when there are none).

        None where it is not known. Images that are absent or damaged are passed over.
        """

    @abstractmethod
    def cached_image_bytes(self) -> int:
        """The largest number of bytes that one image takes in the cache of encoded images; 0 without a cache."""


class SupportsCacheFolder(ABC):
    """Mixin of a `Model` that keeps intermediate results on disk."""

    @abstractmethod
    def use_cache_folder(self, folder: Path) -> None:
        """Called once, before the first prompt: a folder that other runs may share."""


class Measure(Protocol):
    """Asks the model, through the response cache. A row is a question and the ids of the demonstrations shown."""

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = ...) -> list[AnswerLogprob]:
        """Log-probability of each question's true answer, or answers (`scoring.reference`)."""

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = ...) -> list[tuple[str, str, float]]:
        """(raw text, post-processed answer, accuracy) of each row."""


class Encoder(Part):
    """Turns images and texts into vectors for similarity search and for the selector.

    Obligations: float32, unit rows, one row per input in order, the same whatever the batch.
    `needs_model` says that `model` is used; it is None otherwise.
    """

    needs_model: ClassVar[bool] = False

    hidden_states: int | None = Field(
        None,
        ge=0,
        description="add the VLM's own state as it begins to answer, after so many demonstrations, the same for all",
    )

    def check_model(self, model: Model) -> None:
        """Raises PluginError for a model that lacks what this encoder reads of it. Nothing is loaded."""
        return

    def check_image(self, image: Image) -> None:
        """Raises DataError for an image that lacks what is read of it: a file, or a caption. No file is opened."""
        return

    @abstractmethod
    def images(self, images: Sequence[Image], model: Model | None = None) -> Floats:
        """(N, D_image)"""

    @abstractmethod
    def texts(self, texts: Sequence[str], model: Model | None = None) -> Floats:
        """(N, D_text)"""


@dataclass(frozen=True)
class Features:
    """Encoded rows, aligned with their questions or demonstrations: image (N, Di), text (N, Dt), unit rows.

    `answer` (N, Dt) is there for demonstrations only, `state` (N, Ds) where the encoder's `hidden_states` asks for it.
    """

    image: Floats
    text: Floats
    answer: Floats | None = None
    state: Floats | None = None


@dataclass(frozen=True)
class Bank:
    """The demonstrations that pools are drawn from, with their features."""

    demonstrations: Sequence[Demonstration]
    features: Features

    @classmethod
    def without_features(cls, demonstrations: Sequence[Demonstration]) -> Bank:
        """A bank for rules that read no features."""
        empty = np.zeros((0, 0), np.float32)
        return cls(demonstrations, Features(empty, empty))

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """(M,) ids of the demonstrations."""
        return np.array([d.id for d in self.demonstrations])

    @cached_property
    def image_ids(self) -> NDArray[np.str_]:
        """(M,) ids of their images."""
        return np.array([d.image.id for d in self.demonstrations])

    @cached_property
    def rows_of_id(self) -> Mapping[str, int]:
        """Id of a demonstration -> its row."""
        return {d.id: row for row, d in enumerate(self.demonstrations)}

    @cached_property
    def rows_of_image(self) -> Mapping[str, Sequence[int]]:
        """Id of an image -> the rows that show it."""
        found: dict[str, list[int]] = {}
        for row, demonstration in enumerate(self.demonstrations):
            found.setdefault(demonstration.image.id, []).append(row)
        return found

    def hidden(self, question: Question) -> NDArray[np.intp]:
        """The rows that `question` must not be shown, ascending: the question itself and those of its image."""
        own = self.rows_of_id.get(question.id)
        rows = {*self.rows_of_image.get(question.image.id, ()), *(() if own is None else (own,))}
        return np.array(sorted(rows), dtype=np.intp)

    @cached_property
    def _moments(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        return {}

    def spread(self, block: str, vectors: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(B,) the sum of the cosines of `vectors` (B, D) with all rows of a block, and the sum of their squares.

        From the sum and the second moments of the rows, in float64: not from the cosines themselves, whose last bits
        depend on the batch and on the number of threads.
        """
        if block not in self._moments:
            rows = getattr(self.features, block)
            total, second = np.zeros(rows.shape[1]), np.zeros((rows.shape[1],) * 2)
            for start in range(0, len(rows), 2**14):
                part = rows[start : start + 2**14].astype(np.float64)
                total += part.sum(axis=0)
                second += part.T @ part
            self._moments[block] = total, second
        total, second = self._moments[block]
        exact = vectors.astype(np.float64)
        return exact @ total, ((exact @ second) * exact).sum(axis=1)


@dataclass(frozen=True)
class Query:
    """A question with its feature rows: image (Di,), text (Dt,), and state (Ds,) with the encoder's `hidden_states`."""

    question: Question
    image: Floats
    text: Floats
    state: Floats | None = None

    @classmethod
    def of(cls, question: Question, features: Features | None, row: int) -> Query:
        """The question with its row of `features`; empty rows where there are none."""
        if features is None:
            empty = np.zeros(0, np.float32)
            return cls(question, empty, empty)
        state = None if features.state is None else features.state[row]
        return cls(question, features.image[row], features.text[row], state)


class Sampler(Part):
    """Proposes one frozen pool of demonstrations for each question.

    Obligations: `k` distinct demonstrations, never the question itself nor one that shows its image; what is drawn
    depends on `rng` alone. Raises DataError when the bank has fewer than `k` that are allowed.
    """

    k: int = 64

    @abstractmethod
    def pool(self, query: Query, bank: Bank, rng: np.random.Generator) -> list[int]:
        """`k` row numbers of `bank.demonstrations`."""

    def pools(
        self, queries: Sequence[Query], bank: Bank, rngs: Sequence[np.random.Generator]
    ) -> Sequence[Sequence[int]]:
        """`pool` of each query with the generator beside it: this is what the pool stage calls.

        One after the other unless a sampler says it otherwise. One that reads features may multiply those of all
        queries with the bank's at once; what it draws must be what `pool` draws.
        """
        return [self.pool(query, bank, rng) for query, rng in zip(queries, rngs, strict=True)]

    def blocks(self) -> frozenset[str]:
        """The blocks of features that are read: of "image", "text" and "state"."""
        return frozenset({"image", "text"})


class Balancer(Part):
    """Selects the candidates of a question that training learns from.

    Obligations: a subset of `group` without repeats, in any order, from `rng` alone; empty drops the question. A
    candidate's measurements may be None, all but the accuracy.
    """

    @abstractmethod
    def select(self, group: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        """The candidates of one question that teach; `group` holds all that were measured for it."""

    def needs(self) -> frozenset[Measurement]:
        """The measurements that `select` reads beside the accuracy. Candidates are measured without the others.

        The log-probability and the InfoScore cost a prompt each time; a part that reads neither saves it.
        """
        return MEASUREMENTS

    def shortfall(self, group: Sequence[Candidate], selected: Sequence[Candidate]) -> str:
        """What of its settings could not be met for this question, in a few words that recur ('' for nothing).

        `group` is what it was given, `selected` what it selected. The balance stage counts and stores these; a
        question that is dropped without a word counts as 'dropped'.
        """
        return ""


class Reward(Part):
    """Turns the measurements of a question's candidates into one number each; higher is better.

    Obligations: finite, one per candidate in order, independent of the order of the group. A measurement that a
    candidate lacks (None: it came from a file that does not hold it) raises DataError that names it, as `require`
    does, where the reward reads it.
    """

    @abstractmethod
    def compute(self, group: Sequence[Candidate]) -> list[float]:
        """One number per candidate of a question, which has at least one, in order.

        Raises DataError for a measurement that is lacking.
        """

    def needs(self) -> frozenset[Measurement]:
        """The measurements that `compute` reads beside the accuracy. Candidates are measured without the others.

        The log-probability and the InfoScore cost a prompt each time; a reward that reads neither saves it.
        """
        return MEASUREMENTS

    def require(self, candidate: Candidate, what: Measurement) -> float:
        """A measurement that a candidate may lack. Raises DataError that names it, the question and this reward."""
        value: float | None = getattr(candidate, what)
        if value is None:
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__.removesuffix("Reward")).lower()
            raise DataError(
                f"reward '{name}' needs each candidate's {what}; one of question {candidate.question_id} has none.",
                "Measure these candidates with a model, or choose a reward of the accuracy alone, such as separated.",
            )
        return value


def allowed(query: Query, bank: Bank) -> NDArray[np.intp]:
    """Row numbers of the demonstrations that `query` may be shown: not the question itself, not its image."""
    return np.delete(np.arange(len(bank.demonstrations), dtype=np.intp), bank.hidden(query.question))
