"""How long a run still takes, by its plan and the speeds measured so far."""

from __future__ import annotations

from typing import Any

from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.pipeline.plan import plan
from leverplus_core.pipeline.remaining import Work, planned_work, seconds_left
from leverplus_core.progress import Silent
from leverplus_core.scoring.meter import ANSWERS, LOGPROBS, PromptMeter

WORK = {
    "search": Work(100, {LOGPROBS: 300, ANSWERS: 0}),
    "sft": Work(unplanned=True),
    "evaluate": Work(50, {LOGPROBS: 0, ANSWERS: 100}),
}


def _meter() -> PromptMeter:
    meter = PromptMeter()
    for kind, images, seconds in (
        (LOGPROBS, 10, 60.0), (LOGPROBS, 30, 3.0), (LOGPROBS, 30, 1.5), (ANSWERS, 1, 9.0), (ANSWERS, 10, 4.0),
    ):  # fmt: skip
        meter.took(kind, images, seconds)
    return meter


def test_the_first_chunk_of_a_kind_which_loads_weights_is_no_measure_of_its_speed() -> None:
    meter = _meter()
    assert meter.seconds_per_image(LOGPROBS) == 4.5 / 60 and meter.seconds_per_image(ANSWERS) == 0.4
    fresh = PromptMeter()
    fresh.took(ANSWERS, 10, 30.0)
    assert fresh.seconds_per_image(ANSWERS) is None
    fresh.took(ANSWERS, 10, 0.1)  # too short to tell
    assert fresh.seconds_per_image(ANSWERS) is None


def test_what_is_left_is_the_rest_of_the_stage_and_all_of_the_later_ones() -> None:
    # 300 images at 0.075 s and 100 at 0.4 s; of the search 40 of 100 prompts are computed.
    assert seconds_left(WORK, ["search", "sft", "evaluate"], 0, _meter()) == (22.5 + 40, True)
    assert seconds_left(WORK, ["search", "sft", "evaluate"], 40, _meter()) == (0.6 * 22.5 + 40, True)
    assert seconds_left(WORK, ["evaluate"], 25, _meter()) == (20, False)
    assert seconds_left(WORK, ["search"], 0, _meter()) == (22.5, False)


def test_there_is_no_number_before_there_is_one() -> None:
    searched = PromptMeter()
    for _ in range(2):
        searched.took(LOGPROBS, 10, 5.0)
    assert seconds_left(WORK, ["search"], 0, searched) == (150, False)
    assert seconds_left(WORK, ["search", "sft", "evaluate"], 0, searched) is None  # answers have no speed yet
    assert seconds_left(WORK, ["evaluate"], 60, _meter()) is None  # nothing that is planned is left
    assert seconds_left({}, ["search"], 0, _meter()) is None


def test_the_work_of_a_run_is_that_of_its_plan(tiny: Any, finished: Any) -> None:
    world, _ = finished
    context = RunContext(tiny(), world.catalog, world.work, progress=Silent())
    work, planned = planned_work(Pipeline(context)), {stage.stage: stage for stage in plan(context).stages}
    assert {name: stage.prompts for name, stage in planned.items()} == {name: w.prompts for name, w in work.items()}
    assert {n: s.images_shown for n, s in planned.items()} == {n: sum(w.images.values()) for n, w in work.items()}
    assert {name for name, w in work.items() if w.unplanned} >= {"sft", "rce", "grpo"}
