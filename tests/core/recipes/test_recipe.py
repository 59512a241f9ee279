"""Recipes: reading, extending, overriding, and the one line that each mistake gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leverplus_core.errors import LeverplusError, RecipeError
from leverplus_core.pipeline.context import RunContext
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.loader import bundled
from leverplus_core.recipes.recipe import Recipe, method_order
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
    assert (
        demo.fingerprint()
        == Recipe.load("demo", ["name=other", "threads=1", "note=x", "training.device=cpu"]).fingerprint()
    )
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
        ("seed: 1\nseed: 2\n", r"mine.yaml:2 is not YAML: the key 'seed' stands twice"),
        ("extends: [demo, other]\n", r"'extends' in mine.yaml:1 is not a recipe: \['demo', 'other'\]"),
        ("&a\nname: *a\n", "the anchor 'a' holds itself"),
        (
            "scoring:\n  mining: {enuf: 1}\n",
            r"unknown key 'scoring.mining.enuf' in mine.yaml:2. Known: .*min_positives",
        ),
        ("training:\n  online:\n    candidates: {beam: 1}\n", r"'training.online.candidates.beam' in mine.yaml:3"),
        (
            "training:\n  grpo: {epochs: 1}\n  sft: 5\n",
            r"'training.sft' in mine.yaml:3 is not a mapping of settings of a trainer \(given: 5\). Write sft: {ep",
        ),
        (
            "training:\n  validation_fractio: 0.3\n",
            r"'training.validation_fractio' in mine.yaml:2 .*Did you mean 'validation_fraction'",
        ),
        (
            "scoring:\n  candidates:\n    samples: [1]\n",
            r"'scoring.candidates.samples' in mine.yaml:3 is not a mapping. Write \{key: value\}",
        ),
        ("scoring: null\n", r"'scoring' in mine.yaml:1 is not a mapping of settings. Settings: questions"),
        ("sampler: [mix]\n", r"'sampler' in mine.yaml:1 is not a part. Write NAME"),
        ("evaluation:\n  shots: 3\n", r"'evaluation.shots' in mine.yaml:2 is not a list \(given: 3\). Write \[3\]"),
        (
            "evaluation:\n  baselines: [random, text_knn, random]\n",
            r"'evaluation.baselines' in mine.yaml:2: names 'random' twice",
        ),
        (
            "evaluation:\n  baselines:\n    - random\n    - 5\n",
            r"'evaluation.baselines.1' in mine.yaml:4 is not a part \(given: 5\)",
        ),
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
        ("evaluation={oracle: {x: 1}}", "unknown key 'evaluation.oracle' in --set evaluation"),
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
        (
            "training:\n  rce: {epochs: 1}\n  sft:\n    epochz: 1\n",
            "seed=1",
            "trainer 'sft' in mine.yaml:4: unknown setting 'epochz'. Did you mean 'epochs'",
        ),
        ("seed: 1\n", "training.sft.epochz=1", "trainer 'sft' in --set training.sft.epochz: unknown setting"),
        (
            "evaluation:\n  baselines:\n    - random\n    - name: oracle\n      num_beam: 3\n",
            "seed=1",
            "selector 'oracle' in mine.yaml:5: unknown setting 'num_beam'. Did you mean 'num_beams'",
        ),
        ("sampler: {name: mixed, k: 0}\n", "seed=1", "sampler 'mixed' in mine.yaml:1: k=0"),
    ],
)
def test_a_setting_of_a_part_is_found_where_it_stands(
    tmp_path: Path, catalog: Catalog, text: str, override: str, place: str
) -> None:
    recipe = Recipe.load(_write(tmp_path, text), [override])
    with pytest.raises(RecipeError, match=place):
        RunContext(recipe, catalog)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "training:\n  rce: {epochs: 1}\n  stf: {epochs: 3}\n",
            "no trainer named 'stf' in mine.yaml:3. Did you mean 'sft'",
        ),
        (
            "evaluation:\n  baselines:\n    - random\n    - name: text_kn\n",
            "no selector named 'text_kn' in mine.yaml:4. Did you mean 'text_knn'",
        ),
        (
            "evaluation:\n  baselines: [random, pointer]\n",
            "selector 'pointer' in mine.yaml:2 is not a BaselineSelector. .*: bank_knn, bm25, fixed, image_knn, oracle",
        ),
        (
            "selector: random\n",
            "selector 'random' in mine.yaml:1 is not a TrainableSelector. .*: lever_lm, pairwise, pointer",
        ),
        (
            "training:\n  online: {rounds: 1, trainer: gpro}\n",
            "training.online.trainer 'gpro' in mine.yaml:2 is not a .*. Did you mean 'grpo'. Known: grpo, mrt, rce",
        ),
        (
            "training:\n  online: {rounds: 1, trainer: sft}\n",
            "training.online.trainer 'sft' in mine.yaml:2 is not a trainer that learns from candidates",
        ),
        (
            "training:\n  grpo: {epochs: 1, start: mrt}\n  mrt: {epochs: 1}\n",
            "training.grpo.start in mine.yaml:2 is 'mrt', which does not train before grpo. Known: rce, sft",
        ),
        (
            "training:\n  sft: {epochs: 0}\n  rce: {epochs: 1, start: sft}\n",
            "training.rce.start in mine.yaml:3 is 'sft', which does not train before rce. Set it to null",
        ),
        ("evaluation:\n  policies: [sfd]\n", "evaluation.policies in mine.yaml:2 names 'sfd', .*Did you mean 'sft'"),
        (
            "sampler: {name: mixed, k: 8, text: 0.25, image: 0, state: 0.5}\n",
            "sampler 'mixed' in mine.yaml:1 reads hidden states, and there are none. Set encoder.hidden_states",
        ),
        (
            "evaluation:\n  baselines:\n    - random\n    - state_knn\n",
            "baseline 'state_knn' in mine.yaml:4 reads hidden states, and there are none. Set encoder.hidden_states",
        ),
        (
            "evaluation:\n  baselines: [{name: bank_knn, by: state}]\n",
            "baseline 'bank_knn' in mine.yaml:2 reads hidden states, and there are none. Set encoder.hidden_states",
        ),
    ],
)
def test_a_part_that_does_not_fit_is_refused_when_the_recipe_is_composed(
    tmp_path: Path, catalog: Catalog, text: str, says: str
) -> None:
    recipe = Recipe.load(_write(tmp_path, text))
    with pytest.raises(LeverplusError, match=says) as caught:
        RunContext(recipe, catalog, tmp_path / "work")
    assert "\n" not in str(caught.value) and not (tmp_path / "work").exists()


def test_a_sampler_may_draw_by_states_that_the_encoder_gives(tmp_path: Path, catalog: Catalog) -> None:
    text = "sampler: {name: mixed, k: 8, text: 0.25, image: 0, state: 0.5}\nencoder: {hidden_states: 4}\n"
    assert RunContext(Recipe.load(_write(tmp_path, text)), catalog).sampler.blocks() == {"text", "state"}
    # A share that is less than one demonstration of the pool reads no states.
    RunContext(Recipe.load(_write(tmp_path, "sampler: {name: mixed, k: 8, state: 0.1}\n")), catalog)


_NAMED_AS_A_BASELINE = """
from leverplus_core import FitResult, Trainer, hookimpl

@hookimpl
def leverplus_trainers():
    return {"random": "trainer_named_as_a_baseline:Named"}

class Named(Trainer):
    \"\"\"Has the name of a baseline.\"\"\"

    def fit(self, policy, data, validation, run):
        return FitResult(0, [])
"""


def test_a_trainer_named_as_a_baseline_is_refused(tmp_path: Path) -> None:
    """Their rows of a report would be one."""
    catalog = Catalog.load([_write(tmp_path, _NAMED_AS_A_BASELINE, "trainer_named_as_a_baseline.py")], disabled="")
    recipe = Recipe.load(_write(tmp_path, "seed: 1\ntraining:\n  random: {epochs: 1}\n"))
    with pytest.raises(RecipeError, match=r"'random' in mine.yaml:3 is a trainer and a baseline"):
        RunContext(recipe, catalog)
    alone = Recipe.load(_write(tmp_path, "training:\n  random: {epochs: 1}\nevaluation: {baselines: [zero_shot]}\n"))
    assert list(RunContext(alone, catalog).trainers) == ["sft", "rce", "grpo", "mrt", "random"]


def test_names_of_one_class_share_results(catalog: Catalog) -> None:
    contexts = [
        RunContext(Recipe.load("demo", [f"sampler={{name: {name}, k: 8}}"]), catalog) for name in ("random", "rand")
    ]
    assert contexts[0].identity("sampler") == contexts[1].identity("sampler")
    assert [row["name"] for row in contexts[1].provenance() if row["kind"] == "sampler"] == ["rand"]


def test_methods_stand_in_one_order_in_reports() -> None:
    baselines = "evaluation.baselines=[oracle, {name: text_knn}, random]"
    values = Recipe.load("demo", ["training.dpo.epochs=1", baselines, "evaluation.ablations=[]"]).values()
    expected = ["text_knn", "random", "sft", "rce", "grpo", "mrt", "dpo", "online", "adaptive", "oracle"]
    assert method_order(values) == expected
    # A registry may give the keys back in another order.
    assert method_order(json.loads(json.dumps(values, sort_keys=True))) == expected
    assert method_order({}) == method_order(Recipe().values())
    ablated = {"training": {"sft": {}}, "evaluation": {"baselines": [], "ablations": ["blank_images", "reversed"]}}
    assert method_order(ablated)[:3] == ["sft", "sft+blank_images", "sft+reversed"]


def test_trainers_run_in_the_order_of_the_report_then_as_written() -> None:
    recipe = Recipe.of(
        {"training": {"second": {"epochs": 1}, "grpo": {"epochs": 2}, "first": {}, "online": {"rounds": 1}}}
    )
    assert list(recipe.training.trainers) == ["sft", "rce", "grpo", "mrt", "second", "first"]
    assert recipe.training.trainers["grpo"] == {"epochs": 2} and recipe.training.online.rounds == 1


@pytest.mark.parametrize("override", ["novalue", "=3", "scoring.beam_search.num_beams=-1", "training.sft=1"])
def test_a_bad_override_is_one_line(override: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load("demo", [override])
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_says_what_exists() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'demo'"):
        Recipe.load("dmeo")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "training:\n  sft:\n    learning_rate: .inf\n",
            "'training.sft.learning_rate' in mine.yaml:3 is inf. Write a finite",
        ),
        ("sampler: {name: mixed, text: .nan}\n", "'sampler.text' in mine.yaml:1 is nan. Write a finite number."),
        ("evaluation:\n  baselines: [{name: oracle, num_beams: -.inf}]\n", "is -inf. Write a finite number."),
    ],
)
def test_a_number_that_is_not_finite_is_refused_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(_write(tmp_path, text))
    assert says in str(caught.value)


def test_a_pattern_of_a_file_name_needs_no_quotes_in_an_option() -> None:
    for pattern in ("{image_id}.png", "{subtype}/{image_id:012d}.jpg", "{subtype}_{image_id}"):
        recipe = Recipe.load("demo", [f"dataset.image_name={pattern}"], {"dataset": f"vqa_json:image_name={pattern}"})
        assert recipe.dataset.settings == {"image_name": pattern}
        assert Recipe.load("demo", [], {"dataset": f"vqa_json:image_name={pattern}"}).dataset.settings["image_name"]
    with pytest.raises(RecipeError, match=r"the value in '--set a=\{b: 1\}\}' is not YAML"):
        Recipe.load("demo", ["a={b: 1}}"])


def test_keyword_arguments_are_the_keys_of_a_recipes_file(tmp_path: Path) -> None:
    text = (
        "extends: demo\nsampler: mixed:k=8\ndataset: {train: a/b.jsonl}\nscoring: {questions: 40, candidates: "
        "{samples: {1.0: 2}}}\ntraining: {mrt: {epochs: 3}}\nevaluation: {shots: [1, 2], baselines: [random]}\n"
    )
    written = Recipe.load(_write(tmp_path, text))
    made = Recipe(
        extends="demo", name="mine", sampler="mixed:k=8", dataset={"train": Path("a/b.jsonl")},
        scoring={"questions": np.int64(40), "candidates": {"samples": {1.0: 2}}}, training={"mrt": {"epochs": 3}},
        evaluation={"shots": (1, 2), "baselines": ["random"]},
    )  # fmt: skip
    assert made.values() == written.values() and made.fingerprint() == written.fingerprint()
    assert Recipe(extends=tmp_path / "mine.yaml", name="mine").values() == written.values()
    assert Recipe(extends="demo").name == "unnamed" and Recipe().values() == Recipe.of({}).values()
    other = Recipe(decoding=written.decoding, evaluation={"shots": np.arange(1, 3)})
    assert other.evaluation.shots == (1, 2) and other.decoding == written.decoding


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"samplr": "mixed"}, "unknown key 'samplr'. Did you mean 'sampler'?"),
        ({"extends": "demo", "scoring": {"question": 3}}, "unknown key 'scoring.question' in the keyword arguments."),
        ({"sampler": 3}, "'sampler' is not a part (given: 3). Write NAME, or {name: NAME, setting: value}."),
        ({"extends": "demo", "seed": -1}, "'seed' in the keyword arguments: Input should be greater than or equal to"),
        ({"extends": "dem"}, "no recipe 'dem'."),
        ({"extends": 7}, "'extends' in the keyword arguments is not a recipe: 7."),
        ({"dataset": {"train": {1, 2}}}, "'dataset.train' is a set: {1, 2}. A recipe holds numbers, texts, lists"),
        ({"evaluation": {"shots": [1, float("nan")]}}, "'evaluation.shots.1' is nan. Write a finite number."),
        ({"name": "latest"}, "'name': must not be empty, 'latest', or hold a colon (given: 'latest')."),
    ],
)  # fmt: skip
def test_a_mistake_in_keyword_arguments_is_one_line_that_names_the_key(keywords: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError) as raised:
        Recipe(**keywords)
    assert str(raised.value).startswith(told) and "\n" not in str(raised.value)
