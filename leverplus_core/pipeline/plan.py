"""Estimate model calls, disk and time per stage, from the settings and the dataset's counts alone.

The rows are those of the stages that a run goes through, each of which says what it costs. Prompts are upper bounds:
exact where no sequence is proposed twice and nothing is in the response cache, as in a beam search. Hours are an
estimate for a stated throughput, which is an assumption until it has been measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from leverplus_core.errors import DataError
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.stage import PromptCounts, StageCost
from leverplus_core.plugins.contracts import Size, SupportsPlanning
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import PROMPTS_PER_CANDIDATE

if TYPE_CHECKING:
    from rich.table import Table

REFERENCE_SHOTS = 2
"""A throughput counts prompts of so many demonstrations; a prompt of n costs (n + 1) / (2 + 1) of one."""
RESPONSE_BYTES = 128  # a row of the cache: a key of 32 bytes, a short JSON text, and SQLite's pages
PREDICTION_BYTES = 512  # a row of the registry with its index, and a line of a predictions file
CANDIDATE_BYTES = 512  # a line of a candidates file
SEQUENCE_BYTES = 192  # a line of a sequences file
POOL_ID_BYTES = 24  # a line of pools.json: an id, or a question with its brackets


@dataclass(frozen=True)
class Throughput:
    """What a device does in a second: prompts of two demonstrations, and images not seen before.

    The defaults are arithmetic, not a measurement: Qwen2.5-VL-3B in bfloat16 at 120 TFLOP/s, 40% of an A100's peak. A
    prompt with three photos of 391 visual tokens has about 1,250 tokens of 6 GFLOP: 16 a second. The vision tower
    takes 2.1 TFLOP a photo; 40 a second leave time to decode the file. A generated answer counts as one prompt.
    """

    prompts_per_s: float = 16.0
    images_per_s: float = 40.0


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

    @classmethod
    def of(cls, context: RunContext) -> Planning:
        """From a composed recipe, without weights. Raises DataError when the dataset is neither there nor of a known
        size, or nothing would be asked of a model."""
        if context.offline:
            raise DataError(
                "a run on imported features asks no model: there is nothing to plan.", "Set imported.features=false."
            )
        note, images = "", {}
        try:
            rows = context.dataset.questions("train"), context.dataset.questions("validation")
        except DataError as e:
            known = context.dataset.expected_size()
            if known is None:
                raise
            size, note = known, f"The dataset is not there ({e.what.rstrip('.')}): its official counts are used."
        else:
            size = Size(*map(len, rows), *(len({q.image.id for q in split}) for split in rows))
            images = {q.image.id: q.image for split in rows for q in split}
        model = context.model
        if not isinstance(model, SupportsPlanning):
            return cls(context, size, note=note)
        return cls(context, size, model.image_tokens(list(images.values())), model.cached_image_bytes(), note)

    @property
    def recipe(self) -> Recipe:
        return self.context.recipe

    @property
    def pool(self) -> int:
        """Demonstrations in a pool."""
        return self.context.sampler.k

    @property
    def encoder_uses_model(self) -> bool:
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
    def scored(self) -> int:
        """Train questions that are measured."""
        return min(self.recipe.scoring.questions or self.size.train, self.size.train)

    @property
    def asked(self) -> int:
        """Evaluation questions."""
        return min(max(self.recipe.evaluation.sizes), self.size.validation)

    def measured(self, per_question: PromptCounts, budget: int | None = None) -> StageCost:
        """The cost of measuring so many sequences per question: an answer and a log-probability each.

        A beam search has measured each demonstration of a pool alone, and the question without any.
        """
        sequences = {shots: self.scored * count for shots, count in per_question.items()}
        if budget is not None and PROMPTS_PER_CANDIDATE * sum(sequences.values()) > budget:
            sequences = {max(sequences): budget // PROMPTS_PER_CANDIDATE}
        search = self.context.stage("beam_search")
        searched = self.context.enabled[search.name] and not self.context.takes_over(search)
        return StageCost({n: count for n, count in sequences.items() if n > 1 or not searched}, sequences)


@dataclass(frozen=True)
class StagePlan:
    """One stage: prompts by shots, and images that no earlier stage has encoded.

    A hidden state is counted as a log-probability.
    """

    stage: str
    logprobs: PromptCounts = field(default_factory=dict)
    answers: PromptCounts = field(default_factory=dict)
    images: int = 0

    @property
    def prompts(self) -> int:
        return sum(self.logprobs.values()) + sum(self.answers.values())

    @property
    def images_shown(self) -> int:
        """Images in all prompts, one a demonstration and the question's own."""
        return sum((shots + 1) * n for of in (self.logprobs, self.answers) for shots, n in of.items())

    def hours(self, device: Throughput) -> float:
        reference = self.images_shown / (REFERENCE_SHOTS + 1)
        return (reference / device.prompts_per_s + self.images / device.images_per_s) / 3600


@dataclass(frozen=True)
class Plan:
    """Every stage that runs, in order; bytes on disk by what they hold."""

    planning: Planning
    stages: tuple[StagePlan, ...]
    disk: Mapping[str, int]
    prediction_rows: int

    @property
    def prompts(self) -> int:
        return sum(stage.prompts for stage in self.stages)

    def rows(self, device: Throughput) -> list[dict[str, Any]]:
        """A JSON-able row a stage and one for all of them."""
        rows = [self._row(stage, device) for stage in self.stages]
        total = {key: sum(row[key] or 0 for row in rows) for key in rows[0] if key != "stage"}
        if self.planning.image_tokens is None:
            total["visual_tokens"] = None
        return [*rows, {"stage": "total", **total}]

    def summary(self, device: Throughput) -> dict[str, Any]:
        """What stands beside the rows: counts, disk, the assumptions, and where the counts are from. JSON-able."""
        size, tokens = self.planning.size, self.planning.image_tokens
        assumed = "assumed, not measured: a 3B model on one A100-class GPU" if device == Throughput() else "as given"
        rate = (
            f"{device.prompts_per_s:g} prompts of {REFERENCE_SHOTS} shots and {device.images_per_s:g} new images a "
            f"second ({assumed}); training and drawing pools are not in the hours"
        )
        return {
            "recipe": self.planning.recipe.name,
            "questions": f"{size.train:,} train, {size.validation:,} validation",
            "visual tokens": "" if tokens is None else f"at most {tokens:,} an image; text comes on top",
            "throughput": rate,
            "disk": {name: _bytes(count) for name, count in self.disk.items()},
            "registry rows": f"{self.prediction_rows:,} predictions",
            "note": self.planning.note,
        }

    def _row(self, stage: StagePlan, device: Throughput) -> dict[str, Any]:
        tokens = self.planning.image_tokens
        return {
            "stage": stage.stage,
            "logprobs": sum(stage.logprobs.values()),
            "answers": sum(stage.answers.values()),
            "images": stage.images,
            "visual_tokens": None if tokens is None else tokens * stage.images_shown,
            "hours": stage.hours(device),
        }


def plan(context: RunContext) -> Plan:
    """The plan of a whole run that finds nothing done. Raises DataError as `Planning.of`."""
    from leverplus_core.pipeline.stages.evaluate import Evaluate

    planning = Planning.of(context)
    seen = (0, 0)
    stages: list[StagePlan] = []
    new_images = 0
    for stage in context.stages:
        if not context.enabled[stage.name] or context.takes_over(stage):
            continue
        cost = stage.cost(planning)
        now = (
            min(planning.size.train_images, seen[0] + cost.images[0]),
            min(planning.size.validation_images, seen[1] + cost.images[1]),
        )
        new = sum(now) - sum(seen)
        seen, new_images = now, new_images + new
        stages.append(StagePlan(stage.name, cost.logprobs, cost.answers, new + cost.encoded))
    cells = cast(Evaluate, context.stage("evaluate")).cells(planning)
    size = planning.size
    width = 2048 if planning.encoder_uses_model else 512
    rows = 5 * size.train + 2 * size.validation  # image, text and answer of the bank; image and text of questions
    if planning.hidden_states is not None:
        rows += 2 * size.train + size.validation
    candidates = sum(sum(s.answers.values()) for s in stages if s.stage in ("propose", "mine", "online"))
    disk = {
        f"features (width {width:,} assumed)": rows * width * 4,
        "pools": (size.train + size.validation) * (planning.pool + 2) * POOL_ID_BYTES,
        # A stage writes its candidates and those that it was given; the balanced ones are a file of their own.
        "sequences and candidates": planning.scored * planning.recipe.scoring.beam_search.num_beams * SEQUENCE_BYTES
        + 3 * candidates * CANDIDATE_BYTES,
        "responses": sum(stage.prompts for stage in stages) * RESPONSE_BYTES,
        "registry": planning.asked * cells * PREDICTION_BYTES,
    }
    if planning.cached_image_bytes:
        disk["encoded images"] = new_images * planning.cached_image_bytes
    return Plan(planning, tuple(stages), disk, planning.asked * cells)


def plan_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of a plan, at 80 columns."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False)
    drawn.add_column("stage")
    heads = ("log-probs", "answers", "images", "visual tokens", "hours")
    for head in heads:
        drawn.add_column(head, justify="right")
    for row in rows:
        counts = [f"{row[key]:,}" if row[key] else "" for key in ("logprobs", "answers", "images", "visual_tokens")]
        hours = f"{row['hours']:.2f}" if row["hours"] else ""
        drawn.add_row(row["stage"], *counts, hours)
    return drawn


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
