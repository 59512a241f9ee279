"""The records that stages hand to each other: frozen, JSON-able, without behavior.

Every score is such that higher is better; accuracies are in [0, 1]; log-probabilities are natural.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["system", "user", "assistant"]
Ids = tuple[str, ...]
"""Ids of demonstrations, in the order in which they were chosen."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image, by `id` (two questions about one image share it), with its file and, where known, a caption."""

    id: str
    path: str | None = None
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question about an image, with all annotators' answers (ten in VQA)."""

    id: str
    text: str
    image: Image
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A train question shown with its most frequent answer."""

    id: str
    text: str
    image: Image
    answer: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One speaker's content: texts and images in reading order."""

    role: Role
    content: tuple[str | Image, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads before it answers. The answer follows as the assistant's turn."""

    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Decoding:
    """How answers are generated; greedy or beam search, never sampled."""

    max_new_tokens: int = 5
    num_beams: int = 3
    length_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class AnswerLogprob:
    """Log-probability of an answer after a prompt: the sum over its tokens, and their number.

    The token that ends the answer is one of them where it was asked for (`scoring.end_mark`). Of several true answers
    (`scoring.reference: all`) it is the log of the weighted mean of their probabilities, as of one token.
    """

    sum: float
    tokens: int

    @property
    def mean(self) -> float:
        """Log-probability per token."""
        return self.sum / max(self.tokens, 1)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An ordered demonstration sequence for a question, with what the model did after it.

    `accuracy` is the task's score of the generated answer (VQA accuracy), in [0, 1]; `correct` is
    `accuracy >= correct_threshold` of the recipe; `logprob` is the mean log-probability per token of the true answer;
    `info_score` is the gain of the geometric-mean probability of that answer over no demonstrations; `text_similarity`
    compares the text of the answer with the most similar true one, in [0, 1]; `source` says who proposed it. The last
    three are None where an imported file did not measure them. A sequence may be empty: the question without
    demonstrations.
    """

    question_id: str
    demonstrations: tuple[str, ...]
    source: str
    raw_text: str
    prediction: str
    accuracy: float
    correct: bool
    logprob: float | None = None
    info_score: float | None = None
    text_similarity: float | None = None


@dataclass(frozen=True, slots=True)
class ScoredSequence:
    """A demonstration sequence that the InfoScore beam search kept; `score` is the sum of its steps' InfoScores."""

    question_id: str
    demonstrations: tuple[str, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one evaluation question under one method and shot count.

    `copied` says whether the normalized answer equals the normalized answer of a demonstration that was shown (False
    where none was shown); None where it is not known.
    """

    method: str
    shots: int
    question_id: str
    image_id: str
    demonstrations: tuple[str, ...]
    raw_text: str
    prediction: str
    accuracy: float
    copied: bool | None = None


@dataclass(frozen=True, slots=True)
class QuestionData:
    """All that a file holds of one train question, in leverplus's own terms: what importers give and exporters take.

    `pool` is None where no pool is known. `candidates` and `sequences` are this question's, none of them twice.
    """

    question_id: str
    text: str | None = None
    pool: tuple[str, ...] | None = None
    candidates: tuple[Candidate, ...] = ()
    sequences: tuple[ScoredSequence, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingData:
    """Finite feature rows (N, D) of train questions, aligned with their `ids`, in any scale."""

    ids: Sequence[str]
    rows: NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class LoggedSample:
    """One answer in the log of another harness, to the question `id` in its repetition `repeat` (an epoch), from 1.

    `scores` are by metric, as logged; a metric that could not be computed is left out. `text` is the question or the
    prompt, `answers` the true ones, `raw_text` what the model wrote and `prediction` what was scored of it. `digest`
    identifies the document that the question was made from: equal ids of other digests are other questions. A document
    may come several times, with other metrics each time.
    """

    id: str
    scores: Mapping[str, float]
    text: str = ""
    answers: tuple[str, ...] = ()
    raw_text: str = ""
    prediction: str = ""
    digest: str = ""
    repeat: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class SampleLog:
    """The log of one model on one task: what wrote it (`harness`, `version`), and its samples, read as they are asked
    for. What the log does not say is '' or None; `remarks` are what a reader of its results must know."""

    harness: str
    version: str
    task: str
    model: str
    shots: int | None
    samples: Iterable[LoggedSample]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedCell:
    """A method's accuracy as printed in a table: `text` in percent, exactly; `line` of the file, from 1."""

    method: str
    shots: int
    n: int
    text: str
    line: int

    @property
    def percent(self) -> Decimal:
        """The printed accuracy, in percent."""
        return Decimal(self.text)

    @property
    def accuracy(self) -> float:
        """The accuracy in [0, 1], for arithmetic that need not be exact."""
        return float(self.percent / 100)


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A published table of accuracies without predictions.

    `methods` are in the order of their columns; `cells` are row by row, one per method at each (shots, n) of a row;
    `left_out` are the columns that are no method, such as the best of a row.
    """

    methods: tuple[str, ...]
    cells: tuple[PublishedCell, ...]
    left_out: tuple[str, ...] = ()

    @property
    def absent(self) -> list[tuple[int, int]]:
        """The (n, shots) that no row gives although other rows give this n and these shots."""
        there = {(c.n, c.shots) for c in self.cells}
        return sorted({(n, s) for n, _ in there for _, s in there} - there)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a listener is told of a run: its recipe's values, the registry's URL and the folder of artifacts."""

    id: str
    name: str
    recipe: Mapping[str, Any]
    registry: str
    work: str
