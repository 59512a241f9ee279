"""Estimate model calls, disk and time per stage, from the settings and the dataset's counts alone.

The rows are those of the stages that a run goes through, each of which says what it costs. Prompts are upper bounds:
exact where no sequence is proposed twice and nothing is in the response cache, as in a beam search. Hours are an
estimate for a stated throughput, which is an assumption until it has been measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.pipeline.stage import Planning, PromptCounts
from leverplus_core.pipeline.stages.evaluate import Evaluate

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
    takes 2.1 TFLOP a photo; 40 a second leave time to decode the file. A generated answer counts as one prompt where
    `answers_per_s` is not known. `source` says where the figures are from.
    """

    prompts_per_s: float = 16.0
    images_per_s: float = 40.0
    answers_per_s: float | None = None
    source: str = "assumed, not measured: a 3B model on one A100-class GPU"


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
        """Prompts of both kinds."""
        return sum(self.logprobs.values()) + sum(self.answers.values())

    @property
    def images_shown(self) -> int:
        """Images in all prompts, one a demonstration and the question's own."""
        return _shown(self.logprobs) + _shown(self.answers)

    def hours(self, device: Throughput) -> float:
        """Hours on a device of this throughput."""
        seconds = _shown(self.logprobs) / (REFERENCE_SHOTS + 1) / device.prompts_per_s
        seconds += _shown(self.answers) / (REFERENCE_SHOTS + 1) / (device.answers_per_s or device.prompts_per_s)
        return (seconds + self.images / device.images_per_s) / 3600


@dataclass(frozen=True)
class Plan:
    """Every stage that runs, in order; bytes on disk by what they hold."""

    planning: Planning
    stages: tuple[StagePlan, ...]
    disk: Mapping[str, int]
    prediction_rows: int

    @property
    def prompts(self) -> int:
        """Prompts of all stages."""
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
        answers = f", {device.answers_per_s:.3g} answers" if device.answers_per_s else ""
        rate = (
            f"{device.prompts_per_s:.3g} prompts of {REFERENCE_SHOTS} shots{answers} and {device.images_per_s:.3g} new "
            f"images a second ({device.source}); training and drawing pools are not in the hours"
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
    planning = Planning.of(context)
    pipeline = Pipeline(context)
    seen = (0, 0)
    stages: list[StagePlan] = []
    new_images = 0
    for stage in pipeline.stages:
        if not pipeline.enabled[stage.name] or pipeline.takes_over(stage):
            continue
        cost = stage.cost(planning)
        now = (
            min(planning.size.train_images, seen[0] + cost.images[0]),
            min(planning.size.validation_images, seen[1] + cost.images[1]),
        )
        new = sum(now) - sum(seen)
        seen, new_images = now, new_images + new
        stages.append(StagePlan(stage.name, cost.logprobs, cost.answers, new + cost.encoded))
    cells = cast(Evaluate, pipeline.stage("evaluate")).cells(planning)
    size = planning.size
    width = 2048 if planning.encoder_uses_model else 512
    rows = 5 * size.train + 2 * size.validation  # image, text and answer of the bank; image and text of questions
    if planning.hidden_states is not None:
        rows += 2 * size.train + size.validation
    candidates = sum(sum(s.answers.values()) for s in stages if s.stage in ("propose", "mine", "online"))
    sets = planning.sets
    asked = max(sets.searched, sets.proposed) + sets.baseline + sets.evaluated
    disk = {
        f"features (width {width:,} assumed)": rows * width * 4,
        "pools": min(asked, size.train + size.validation) * (planning.pool + 2) * POOL_ID_BYTES,
        # A stage writes its candidates and those that it was given; the balanced ones are a file of their own.
        "sequences and candidates": sets.searched * planning.recipe.scoring.beam_search.num_beams * SEQUENCE_BYTES
        + 3 * candidates * CANDIDATE_BYTES,
        "responses": sum(stage.prompts for stage in stages) * RESPONSE_BYTES,
        "registry": sets.evaluated * cells * PREDICTION_BYTES,
    }
    if planning.cached_image_bytes:
        disk["encoded images"] = new_images * planning.cached_image_bytes
    return Plan(planning, tuple(stages), disk, planning.sets.evaluated * cells)


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


def _shown(prompts: PromptCounts) -> int:
    """Images in prompts, one a demonstration and the question's own."""
    return sum((shots + 1) * n for shots, n in prompts.items())


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
