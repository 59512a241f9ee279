"""Recipes: reading, extending, overriding, and the one line that each mistake gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from leverplus_core.errors import RecipeError
from leverplus_core.pipeline.context import RunContext
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.loader import bundled
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import parse_part


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
    recipe = Recipe.load("demo", [], {"sampler": "mixed:k=32", "model": "qwen2_5_vl:path=a/b,dtype=bfloat16"})
    assert recipe.sampler.settings == {"k": 32}
    assert recipe.model.settings == {"path": "a/b", "dtype": "bfloat16"}
    assert parse_part("mixed") == {"name": "mixed"}


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
        ("sampel: {name: random}\n", r"unknown key 'sampel' in mine.yaml:1. Did you mean 'sampler'"),
        ("extends: mine.yaml\n", "extends itself"),
        ("extends: nothing\n", "no recipe 'nothing' .extended by mine.yaml"),
        ("prompt: {question: hello}\n", r"'prompt.question' in mine.yaml:1: must hold"),
        ("name: 'a:b'\n", "colon"),
        ("seed: 1\nseed: 2\n", r"mine.yaml:2 is not YAML: found duplicate key"),
        ("extends: [demo, other]\n", r"'extends' in mine.yaml:1 is no recipe: \['demo', 'other'\]"),
        ("&a\nname: *a\n", "anchor that holds itself"),
        ("scoring:\n  mining: {enuf: 1}\n", r"unknown key 'scoring.mining.enuf' in mine.yaml:2. Did you mean 'enough'"),
        ("training:\n  online:\n    candidates: {num_beams: 1}\n", r"'training.online.candidates.beam' in mine.yaml:3"),
        ("training: {sft: 5}\n", r"'training.sft' in mine.yaml:1 is no mapping of settings \(given: 5\). Its .*epochs"),
        ("scoring: null\n", r"'scoring' in mine.yaml:1 is no mapping of settings. Its settings: questions"),
        ("sampler: [mix]\n", r"'sampler' in mine.yaml:1 is no part. Write sampler: NAME"),
        ("evaluation:\n  shots: 3\n", r"'evaluation.shots' in mine.yaml:2 is no list \(given: 3\). Write \[3\]"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        Recipe.load(_write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_recipes_that_extend_each_other_are_named_in_order(tmp_path: Path) -> None:
    _write(tmp_path, "extends: b.yaml\n", "a.yaml")
    _write(tmp_path, "extends: c.yaml\n", "b.yaml")
    _write(tmp_path, "extends: a.yaml\n", "c.yaml")
    with pytest.raises(RecipeError, match=r"a.yaml extends itself: a.yaml -> b.yaml -> c.yaml -> a.yaml"):
        Recipe.load(tmp_path / "a.yaml")


def test_a_file_named_as_the_bundled_recipe_may_extend_it(tmp_path: Path) -> None:
    assert Recipe.load(_write(tmp_path, "extends: demo\nseed: 3\n", "demo.yaml")).seed == 3


def test_extends_means_the_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one of that name where the command is given."""
    (tmp_path / "recipes").mkdir()
    _write(tmp_path, "seed: 1\n", "base.yaml")
    _write(tmp_path / "recipes", "seed: 2\n", "base.yaml")
    path = _write(tmp_path / "recipes", "extends: base.yaml\n")
    monkeypatch.chdir(tmp_path)
    assert Recipe.load(path).seed == 2


@pytest.mark.parametrize(
    ("override", "place"),
    [
        (
            "scoring.beam_search.num_beams.x=1",
            "'scoring.beam_search.num_beams' in --set scoring.beam_search.num_beams.x",
        ),
        ("a.b.c=1", "unknown key 'a' in --set a.b.c"),
        ("evaluation={oracle: {x: 1}}", "unknown key 'evaluation.oracle.x' in --set evaluation"),
    ],
)
def test_an_override_is_blamed_for_what_it_broke(override: str, place: str) -> None:
    with pytest.raises(RecipeError, match=place):
        Recipe.load("demo", [override])


@pytest.mark.parametrize(
    ("text", "override", "place"),
    [
        (
            "balancer:\n  name: top_pn\n  p: 3\n  q: 4\n",
            "seed=1",
            "balancer 'top_pn' in mine.yaml:4: unknown setting 'q'",
        ),
        (
            "model: {name: qwen2_5_vl}\n",
            "model.engine.foo=1",
            "in --set model.engine.foo: unknown setting 'engine.foo'",
        ),
        ("sampler: {name: mixed, k: 0}\n", "seed=1", "sampler 'mix' in mine.yaml:1: k=0"),
    ],
)
def test_a_setting_of_a_part_is_found_where_it_stands(
    tmp_path: Path, catalog: Catalog, text: str, override: str, place: str
) -> None:
    recipe = Recipe.load(_write(tmp_path, text), [override])
    with pytest.raises(RecipeError, match=place):
        RunContext(recipe, catalog)


@pytest.mark.parametrize("override", ["novalue", "=3", "scoring.beam_search.num_beams=0", "training.sft.epochz=1"])
def test_a_bad_override_is_one_line(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load("demo", [override])
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_says_what_exists() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'demo'"):
        Recipe.load("dmeo")
