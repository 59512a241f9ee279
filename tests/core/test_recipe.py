"""Recipes: reading, extending, overriding, and the one line that each mistake gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from leverplus_core.errors import RecipeError
from leverplus_core.recipe import Recipe, bundled, parse_part


def _write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_every_bundled_recipe_is_valid() -> None:
    assert {"demo", "okvqa-laptop"} <= set(bundled())
    for name in bundled():
        assert Recipe.load(name).name == name


def test_a_variant_extends_and_lists_differences_only(tmp_path: Path) -> None:
    path = _write(tmp_path, "extends: demo\nsampler: {k: 8}\nreward: hard_plus_soft\n")
    recipe, demo = Recipe.load(path), Recipe.load("demo")
    assert recipe.name == "mine"
    assert recipe.sampler.name == demo.sampler.name and recipe.sampler.settings["k"] == 8
    assert recipe.reward.name == "hard_plus_soft" and recipe.reward.settings == {}
    assert recipe.evaluation == demo.evaluation


def test_another_part_does_not_inherit_the_settings_of_the_one_it_replaces() -> None:
    recipe = Recipe.load("demo", ["balancer.name=keep_all"])
    assert recipe.balancer.settings == {}
    assert Recipe.load("demo", ["sampler.k=5"]).sampler.settings["k"] == 5


def test_parts_compose_from_the_command_line() -> None:
    recipe = Recipe.load("demo", [], {"sampler": "mix:k=32", "model": "qwen2_5_vl:path=a/b,dtype=bfloat16"})
    assert recipe.sampler.settings == {"k": 32}
    assert recipe.model.settings == {"path": "a/b", "dtype": "bfloat16"}
    assert parse_part("mix") == {"name": "mix"}


def test_the_fingerprint_follows_what_decides_the_result() -> None:
    demo = Recipe.load("demo")
    assert demo.fingerprint() == Recipe.load("demo", ["name=other", "threads=1", "note=x"]).fingerprint()
    assert demo.fingerprint() != Recipe.load("demo", ["seed=1"]).fingerprint()
    assert demo.fingerprint() == Recipe.of(demo.values()).fingerprint()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [", r"mine.yaml:\d+ is not YAML"),
        ("- a\n- b\n", "not a mapping"),
        ("seed: many\n", r"'seed' in mine.yaml:1.*given: 'many'"),
        (
            "extends: demo\nevaluation:\n  shotz: [1]\n",
            r"unknown key 'evaluation.shotz' in mine.yaml:3. Did you mean 'shots'",
        ),
        ("sampel: {name: rand}\n", r"unknown key 'sampel' in mine.yaml:1. Did you mean 'sampler'"),
        ("extends: mine.yaml\n", "extends itself"),
        ("extends: nothing\n", "no recipe 'nothing' .extended by mine.yaml"),
        ("prompt: {question: hello}\n", r"'prompt.question' in mine.yaml:1: must hold"),
        ("name: 'a:b'\n", "colon"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        Recipe.load(_write(tmp_path, text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["novalue", "=3", "scoring.beams.beam=0", "training.sft.epochz=1"])
def test_a_bad_override_is_one_line(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load("demo", [override])
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_says_what_exists() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'demo'"):
        Recipe.load("dmeo")
