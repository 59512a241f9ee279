"""A plan whose hours are measured: what is asked, how rates follow from seconds, and the mistakes that are reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.errors import DataError
from leverplus_core.pipeline import probe as module
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.plan import StagePlan, Throughput, plan
from leverplus_core.pipeline.probe import Probe, probe
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe

Tiny = Callable[..., Recipe]
Cli = Callable[..., tuple[int, str, str]]


class _Clock:
    """Each reading is as much later as the next of `steps` says, in seconds."""

    def __init__(self, *steps: float) -> None:
        self.now, self.steps = 0.0, list(steps)

    def perf_counter(self) -> float:
        self.now += self.steps.pop(0)
        return self.now


def test_thirty_prompts_are_timed_and_nothing_is_written(
    tiny: Tiny, tiny_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = RunContext(tiny("dataset={name: tiny, train: 60}"), tiny_catalog, tmp_path / "work")
    asked: dict[str, list[Any]] = {"logprob": [], "generate": []}
    for name, calls in asked.items():
        honest = getattr(type(context.model), name)

        def recorded(self: Any, prompts: Any, *more: Any, calls: Any = calls, honest: Any = honest) -> Any:
            calls.append(list(prompts))
            return honest(self, prompts, *more)

        monkeypatch.setattr(type(context.model), name, recorded)
    # Not timed: 9 s. Log-probabilities with 17 new images 7 s, known 3 s; answers 6 s.
    monkeypatch.setattr(module, "time", _Clock(0, 9, 0, 7, 0, 3, 0, 6))
    found = probe(context)
    assert found == Probe("", 30, 17, 3, 6, 4, 9)
    assert found.throughput == Throughput(10, 17 / 4, 5, "measured: 30 prompts")
    before, unseen, seen = asked["logprob"]
    assert seen == unseen and len(set(seen)) == len(set(before)) == 30 and not set(seen) & set(before)
    shown = [
        {part.id for turn in prompt.turns for part in turn.content if not isinstance(part, str)} for prompt in seen
    ]
    assert {len(images) for images in shown} == {3} and len(set.union(*shown)) == 18
    assert asked["generate"] == [before[:2], seen]
    assert not list(tmp_path.rglob("*.sqlite"))
    context.close()


def test_a_small_dataset_is_timed_with_what_it_has(tiny: Tiny, tiny_catalog: Catalog) -> None:
    context = RunContext(tiny("dataset={name: tiny, train: 5, validation: 5}"), tiny_catalog)
    found = probe(context)
    assert (found.prompts, found.images) == (2, 3)  # of four others, one third after each of two
    few = RunContext(tiny("dataset={name: tiny, train: 3, validation: 5}"), tiny_catalog)
    with pytest.raises(DataError, match="may be shown 2 demonstrations"):
        probe(few)


def test_images_that_take_no_measurable_time_have_a_rate() -> None:
    assert Probe("", 30, 17, 2.0, 6.0, 0.0, 1.0).throughput.images_per_s == 17 / 0.002


def test_answers_have_hours_of_their_own() -> None:
    """3600 log-probabilities of 2 shots at 2/s, as many answers at 0.5/s, 7200 images at 4/s: 0.5 + 2 + 0.5 hours."""
    stage = StagePlan("evaluate", {2: 3600}, {2: 3600}, 7200)
    assert stage.hours(Throughput(2, 4, 0.5)) == pytest.approx(3)
    assert stage.hours(Throughput(2, 4)) == pytest.approx(1.5)


def test_the_source_of_the_rates_is_named(tiny: Tiny, tiny_catalog: Catalog) -> None:
    found = plan(RunContext(tiny(), tiny_catalog))
    assert "assumed, not measured" in found.summary(Throughput())["throughput"]
    rate = found.summary(Throughput(105.3, 154.2, 49.27, "measured: 30 prompts on NVIDIA H200"))["throughput"]
    assert rate.startswith("105 prompts of 2 shots, 49.3 answers and 154 new images a second (measured: 30 prompts on")


def test_plan_prints_the_measured_rates(cli: Cli, tmp_path: Path) -> None:
    settings = ["--set", "dataset.train=40", "--set", "dataset.validation=10", "--set", "model.device=cpu"]
    settings += ["--set", f"dataset.cache={tmp_path / 'world'}"]
    code, out, err = cli("plan", "--probe", "--json", *settings)
    assert code == 0 and "timing" in err
    found = json.loads(out)
    timed = found["probe"]
    assert timed["device"] == "cpu" and timed["prompts"] > 2 and timed["logprob_s"] > 0 < timed["answer_s"]
    assert "measured: " in found["throughput"] and " on cpu" in found["throughput"]
    assert not list(tmp_path.glob(".leverplus*"))


def test_mistakes_are_one_line(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("plan", "--probe", "--images-per-s", "3")
    assert code == 2 and "--probe measures what --images-per-s would state" in err and err.count("\n") == 1
    code, _, err = cli("plan", "--probe", "--set", "model.device=cuda:99", "--set", f"dataset.cache={tmp_path}")
    assert code == 2 and "no device 'cuda:99' on this machine" in err and "Traceback" not in err
