"""What a trainer is: the settings of one training and its loss. No torch.

Trainers are parts of the kind `trainer`, named by the keys of a recipe's `training` block. Each that has epochs is a
stage of the pipeline under its name; it continues from the policy that the trainer before it left, or from that of the
trainer that it names.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from leverplus_core.bounds import Settings
from leverplus_core.plugins.contracts import Part
from leverplus_core.progress import Progress, Silent

if TYPE_CHECKING:
    from leverplus_core.selector.policy import Policy
    from leverplus_core.training.tensors import TrainingData

CurveRow = tuple[int, dict[str, float]]
"""Epoch and its metrics."""
OnEpoch = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class FitResult:
    """What a fit did; epoch 0 is the policy as it came.

    `best_epoch` has the highest mean on the validation questions; `chosen_epoch`, whose weights the policy now holds,
    is the latest that is not told apart from it, and `tied` counts the other epochs that are not. Without validation
    questions both are the last epoch. `curve` has a row for each epoch.
    """

    best_epoch: int
    chosen_epoch: int
    tied: int
    curve: list[CurveRow]


@dataclass(frozen=True)
class Judge:
    """What chooses the epoch: a value for each validation question, higher is better.

    `values(policy)` must depend on the policy's weights alone; `metric` names their mean in the curve.
    """

    metric: str
    values: Callable[[Policy], Sequence[float]]


class StopSettings(Settings):
    """How a selector with a learned stop learns it."""

    cost: float = Field(0.02, ge=0, le=1000, description="cost of showing a demonstration, in units of reward")


@dataclass(frozen=True)
class FitRun:
    """What a fit needs beside its settings and data.

    `name` seeds the order of questions together with `seed`; `judge` chooses the epoch (None: the last is chosen);
    `checkpoint` is the file from which a killed fit resumes; `on_epoch` is called with the epoch and its metrics, again
    for the epochs of a fit that is resumed.
    """

    name: str
    seed: int
    judge: Judge | None = None
    checkpoint: Path | None = None
    progress: Progress = field(default_factory=Silent)
    on_epoch: OnEpoch | None = None


class Trainer(Part):
    """One training of the selector: AdamW, warm-up then cosine to zero, the epoch chosen on validation questions.

    Subclasses give `fit`, which calls `leverplus_core.fit` with a loss, and say what they learn from: `sequences` that
    the beam search kept (their rewards are InfoScores), or measured candidates (`CandidateTrainer`).
    """

    learns_from: ClassVar[Literal["sequences", "candidates"]] = "sequences"

    epochs: int = Field(20, ge=0, description="passes over the training questions; 0 is off")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="peak learning rate of AdamW")
    weight_decay: float = Field(1e-3, ge=0, le=10)
    batch_size: int = Field(32, ge=1, description="questions per step")
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="share of the steps that raise the rate from zero")
    max_grad_norm: float = Field(1.0, gt=0, le=1e6, description="largest norm of the gradient")
    early_stopping_patience: int | None = Field(
        None, ge=1, description="stop after so many epochs without a better one on the validation questions"
    )

    @abstractmethod
    def fit(self, policy: Policy, data: TrainingData, run: FitRun) -> FitResult:
        """Train `policy` in place and leave it with the weights of the chosen epoch.

        Raises DataError for data from which nothing can be learned, or a loss that is not finite.
        """


class CandidateTrainer(Trainer):
    """A trainer that learns from measured candidates, whose rewards are those of the recipe's reward.

    `fit` reads `stop` for a policy with a learned stop; `within` is for the loss (`TrainingGroups.peers`): longer
    sequences are less probable and have other rewards as such, so that a candidate is compared with those of its
    length, and each length of a question counts the same. `question` compares all, as the Lever-Plus report does.
    """

    learns_from: ClassVar[Literal["sequences", "candidates"]] = "candidates"

    start: str | None = Field(
        None, description="the trainer whose policy it continues from; null for the one before it"
    )
    within: Literal["length", "question"] = Field(
        "length", description="a candidate is compared with the question's others of its length, or with all"
    )
    stop: StopSettings = StopSettings()
