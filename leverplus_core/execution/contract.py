"""The contract of execution: chunks of prompts in, their results out, in any order, each once.

A chunk is one call of a model, and can be pickled. Whoever asks keeps the results, so that it alone writes the response
cache and the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from leverplus_core.plugins.contracts import Model, SupportsLookahead
from leverplus_core.records import AnswerLogprob, Decoding, Prompt

Results = Sequence[AnswerLogprob] | Sequence[str]
"""One for each prompt of a chunk, in order."""


@dataclass(frozen=True, slots=True)
class LogprobChunk:
    """A call of `Model.logprob`."""

    prompts: Sequence[Prompt]
    answers: Sequence[str]
    end_mark: bool = False

    def compute(self, model: Model) -> Results:
        """The results of `model`. Raises what it raises."""
        return model.logprob(self.prompts, self.answers, self.end_mark)

    def expect(self, model: Model) -> None:
        """Tell `model` that this is what it computes next, where it can make use of that."""
        if isinstance(model, SupportsLookahead):
            model.expect(self.prompts, self.answers, self.end_mark)


@dataclass(frozen=True, slots=True)
class GenerateChunk:
    """A call of `Model.generate`."""

    prompts: Sequence[Prompt]
    decoding: Decoding

    def compute(self, model: Model) -> Results:
        """The results of `model`. Raises what it raises."""
        return model.generate(self.prompts, self.decoding)

    def expect(self, model: Model) -> None:
        """Nothing: there is no lookahead for generated answers."""


Chunk = LogprobChunk | GenerateChunk


@dataclass(frozen=True, slots=True)
class Computed:
    """The results of the chunk at a position of those given to `Executor.map`, and who computed it ('': this
    process)."""

    index: int
    results: Results
    worker: str = ""


class Executor(Protocol):
    """Computes chunks of prompts somewhere."""

    def map(self, chunks: Sequence[Chunk]) -> Iterator[Computed]:
        """Each chunk once, in any order. Raises what the model raises; ExecutionError where no worker is left."""

    def close(self) -> None:
        """End what computes. Nothing is computed afterwards."""


class InProcess:
    """One chunk after another in this process; the model is loaded with the first."""

    def __init__(self, model: Callable[[], Model]) -> None:
        self._model = model

    def map(self, chunks: Sequence[Chunk]) -> Iterator[Computed]:
        """Each chunk, in order. Raises what the model raises."""
        for i, chunk in enumerate(chunks):
            model = self._model()
            if i + 1 < len(chunks):
                chunks[i + 1].expect(model)
            yield Computed(i, chunk.compute(model))

    def close(self) -> None:
        """Nothing has to end."""
