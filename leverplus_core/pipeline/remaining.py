"""How long a run still takes: the prompts that its plan counts, at the speed that was measured so far.

The plan counts upper bounds, since what is in the response cache costs nothing; so the time is about right where little
is, and too long where much is. Nothing is said before a speed is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from leverplus_core.errors import LeverplusError
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.pipeline.stage import Planning, PromptCounts
from leverplus_core.scoring.meter import ANSWERS, LOGPROBS, PromptMeter


@dataclass(frozen=True)
class Work:
    """What a stage asks at most: prompts, and the images that they show by kind of prompt, one a demonstration and the
    question's own. `unplanned` work is in no plan: training."""

    prompts: int = 0
    images: Mapping[str, int] = field(default_factory=dict)
    unplanned: bool = False


def planned_work(pipeline: Pipeline) -> dict[str, Work]:
    """Stage -> its work, of those that the run goes through and that are not imported; empty where no plan is made."""
    context = pipeline.context
    try:
        planning = Planning.of(context, look_at_images=False)
        costs = {s.name: s.cost(planning) for s in pipeline.stages if pipeline.enabled[s.name]}
    except LeverplusError:  # a run on imported features, or a dataset that the run itself finds missing
        return {}
    return {
        name: Work(
            sum(cost.logprobs.values()) + sum(cost.answers.values()),
            {LOGPROBS: _images(cost.logprobs), ANSWERS: _images(cost.answers)},
            unplanned=name in context.trainers or name == "online",
        )
        for name, cost in costs.items()
        if not pipeline.takes_over(pipeline.stage(name))
    }


def seconds_left(
    work: Mapping[str, Work], left: Iterable[str], computed: int, meter: PromptMeter
) -> tuple[float, bool] | None:
    """(seconds, whether there is training to come, whose time nobody knows) for the stages `left`, of which the first
    is under way and has `computed` so many prompts; None where a kind of prompt to come has no speed yet, or nothing is
    left to ask."""
    total, more = 0.0, False
    for i, name in enumerate(left):
        stage = work.get(name, Work())
        share = max(0.0, 1 - computed / stage.prompts) if i == 0 and stage.prompts else 1.0
        more |= stage.unplanned
        for kind, images in stage.images.items():
            if share and images:
                speed = meter.seconds_per_image(kind)
                if speed is None:
                    return None
                total += share * images * speed
    return (total, more) if total else None


def _images(prompts: PromptCounts) -> int:
    return sum((shots + 1) * count for shots, count in prompts.items())
