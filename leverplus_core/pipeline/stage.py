"""What a stage of the pipeline is: what it reads, what its result depends on, what it does and what it costs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from leverplus_core.plugins.contracts import Part
from leverplus_core.records import Demonstration, Prediction, Question

if TYPE_CHECKING:
    from leverplus_core.pipeline.context import RunContext
    from leverplus_core.pipeline.plan import Planning

PromptCounts = Mapping[int, int]
"""Number of demonstrations -> prompts with so many."""


class StageReport(Protocol):
    """Where a stage tells what should be known before it has finished, or again when its result is reused."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """A training epoch has ended; epoch 0 is the policy as it came."""

    def validation_questions(self, ids: Iterable[str]) -> None:
        """The questions that chose the epoch of the policy."""

    def questions(self, questions: Sequence[Question], demonstrations: Iterable[Demonstration]) -> None:
        """What the ids in the predictions stand for."""

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

    def replay(self, context: RunContext, out: Path, report: StageReport) -> None:
        """Report what `run` reported, from the finished folder `out`: its result is reused by another run."""

    def cost(self, planning: Planning) -> StageCost:
        """An upper bound of what `run` asks of the model, from settings and counts alone."""
        return StageCost()
