"""Sweeps: what an axis may say, which recipes it makes, and that runs share what is equal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.errors import LeverplusError, RecipeError
from leverplus_core.pipeline.sweep import Axis, Combination, Sweep, run_sweep
from leverplus_core.plugins.manager import Catalog
from leverplus_core.progress import Silent
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("reward=separated,mixed", ("separated", "mixed")),
        ("balancer=top_pn:p=6,n=4,keep_all", ("top_pn:p=6,n=4", "keep_all")),
        ("balancer=keep_all,top_pn:p=6,n=4,limit:max_pos=2", ("keep_all", "top_pn:p=6,n=4", "limit:max_pos=2")),
        ("scoring.candidates.shots=[1, 2],[1]", ("[1, 2]", "[1]")),
        ("training.rce.epochs=0,5", ("0", "5")),
        ("recipe=demo, demo-mined", ("demo", "demo-mined")),
    ],
)
def test_an_axis_is_a_key_and_its_values(text: str, values: tuple[str, ...]) -> None:
    assert Axis.parse(text) == Axis(text.partition("=")[0], values)


@pytest.mark.parametrize("text", ["reward", "reward=", "=a,b", "reward=a,,b", "reward=a,a"])
def test_an_axis_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--over"):
        Axis.parse(text)


def test_a_sweep_is_the_cross_product_with_seeds_outermost() -> None:
    axes = [Axis.parse("recipe=demo-mined,demo-top-pn"), Axis.parse("reward=separated,mixed")]
    sweep = Sweep.of("demo", axes, 2, ["training.rce.epochs=3"])
    assert sweep.name == "demo-sweep" and len(sweep.runs) == 8
    assert [r.recipe.seed for r in sweep.runs] == [0] * 4 + [1] * 4
    assert [tuple(r.arm.values()) for r in sweep.runs[:4]] == [
        ("demo-mined", "separated"), ("demo-mined", "mixed"),
        ("demo-top-pn", "separated"), ("demo-top-pn", "mixed"),
    ]  # fmt: skip
    assert {r.recipe.balancer.name for r in sweep.runs} == {"keep_all", "top_pn"}
    assert {r.recipe.training.trainers["rce"]["epochs"] for r in sweep.runs} == {3}
    assert len({r.recipe.fingerprint() for r in sweep.runs}) == len({r.recipe.name for r in sweep.runs}) == 8


def test_more_runs_than_one_command_makes_are_refused_before_any_is_composed() -> None:
    tens = [Axis(f"x{i}", tuple("0123456789")) for i in range(9)]
    with pytest.raises(RecipeError, match=r"these are 1,000,000,000 runs, and one command makes at most 1,000"):
        Sweep.of("demo", tens, 1)
    with pytest.raises(RecipeError, match=r"these are 9,999,999,999 runs"):
        Sweep.repeated(Recipe.load("demo"), 9_999_999_999)


def test_a_sweep_evaluates_held_out_questions_unless_it_is_told_which() -> None:
    rewards = [Axis.parse("reward=separated,mixed")]
    sweep = Sweep.of("demo", rewards, 1)
    assert sweep.held_out and {r.recipe.evaluation.split for r in sweep.runs} == {"held_out"}
    assert Recipe.load("demo").evaluation.split == "validation", "a run reports what a sweep has chosen"
    for override in ("evaluation.split=validation", "evaluation={split: validation}"):
        told = Sweep.of("demo", rewards, 1, [override])
        assert not told.held_out and {r.recipe.evaluation.split for r in told.runs} == {"validation"}
    axis = Sweep.of("demo", [Axis.parse("evaluation.split=validation,held_out")], 1)
    assert not axis.held_out and [r.recipe.evaluation.split for r in axis.runs] == ["validation", "held_out"]


def test_a_part_that_is_fixed_stands_in_every_combination() -> None:
    axes = [Axis.parse("reward=separated,mixed")]
    sweep = Sweep.of("demo", axes, 1, parts={"sampler": "random:k=7"})
    assert [(r.recipe.sampler.name, r.recipe.reward.name) for r in sweep.runs] == [
        ("random", "separated"), ("random", "mixed"),
    ]  # fmt: skip
    with pytest.raises(RecipeError, match="--over reward and --reward exclude each other"):
        Sweep.of("demo", axes, 1, parts={"reward": "mixed"})


def test_what_a_run_of_a_sweep_tells_names_its_arm_and_its_seed(
    tiny: Callable[..., Recipe], finished: tuple[Any, Any]
) -> None:
    world, _ = finished
    told: list[str] = []

    class Kept(Silent):
        def task(self, label: str, total: int) -> Any:
            told.append(label)
            return super().task(label, total)

        def say(self, message: str) -> None:
            told.append(message)

    arm = {"reward": "separated", "training.rce.epochs": "2"}
    run_sweep(Sweep("s", (Combination(tiny(), arm),)), Registry(world.url), world.work, world.catalog, Kept())
    assert told[0] == "sweep s" and len(told) > 3
    assert all(line.startswith("separated, 2, seed 0: ") for line in told[1:]), told


def test_mistakes_are_told_before_anything_runs() -> None:
    with pytest.raises(RecipeError, match="names reward twice"):
        Sweep.of("demo", [Axis.parse("reward=separated,mixed"), Axis.parse("reward=info_score,mixed")], 1)
    with pytest.raises(RecipeError, match="Use --seeds"):
        Sweep.of("demo", [Axis.parse("seed=1,2")], 1)
    with pytest.raises(RecipeError, match="same experiment"):
        Sweep.of("demo", [Axis.parse("training.rce.learning_rate=0.001,0.0010")], 1)
    with pytest.raises(RecipeError, match="shotz"):
        Sweep.of("demo", [Axis.parse("evaluation.shotz=[1],[2]")], 1)


@pytest.mark.parametrize(
    ("axis", "says"),
    [
        ("reward=separated,nosuch", "no reward named 'nosuch' in --reward"),
        ("training.rce.epochz=1,2", "epochz"),
        ("evaluation.shots=[1],[99]", "99 shots cannot be filled"),
        ("model.device=cpu,cuda:97", "no device 'cuda:97' on this machine"),
    ],
)
def test_a_part_that_cannot_be_built_is_told_before_anything_runs(
    tiny_catalog: Catalog, tmp_path: Path, axis: str, says: str
) -> None:
    sweep = Sweep.of("demo", [Axis.parse(axis)], 1)
    registry = Registry(f"sqlite:///{tmp_path}/r.db")
    with pytest.raises(LeverplusError, match=says):
        run_sweep(sweep, registry, tmp_path / "work", tiny_catalog)
    assert not registry.runs() and not (tmp_path / "work").exists()
