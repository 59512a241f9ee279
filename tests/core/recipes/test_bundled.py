"""The bundled recipes: valid, buildable without network or weights, and each variant one difference from its base."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.plan import Throughput, plan
from leverplus_core.pipeline.run import run
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.loader import bundled
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import PARTS
from leverplus_core.registry.registry import Registry
from leverplus_core.scoring.prompt import post_process

VARIANTS = (
    "okvqa-3b-all", "okvqa-3b-mined", "okvqa-3b-top-pn", "okvqa-3b-ratio", "okvqa-3b-no-drop",
    "okvqa-3b-limit", "okvqa-3b-query-ratio", "okvqa-3b-mixed",
)  # fmt: skip
SMALL = [
    "sampler.k=6", "scoring.questions=40", "scoring.mining.rounds=1", "selector.width=32",
    "scoring.beam_search={num_beams: 2, expand_top_k: 3}", "scoring.candidates={num_beams: 2, retrieval: 2}",
    "scoring.correct_threshold=0.1", "decoding={max_new_tokens: 2, num_beams: 1}",
    "prompt.system=Answer with one word.", "training.sft.epochs=1", "training.rce.epochs=1", "training.mrt.epochs=1",
    "evaluation.shots=[1]", "evaluation.sizes=[4]", "threads=1",
    "evaluation.baselines=[zero_shot, random, {name: oracle, num_beams: 1, expand_top_k: 2}]",
]  # fmt: skip
ON_THE_DEMO = {"dataset": "demo_world:train=60,validation=8", "model": "qwen2_5_vl:path=demo", "encoder": "vlm"}


def _written(name: str) -> dict[str, Any]:
    """What a recipe's file lists, less what only describes it."""
    document = YAML(typ="safe", pure=True).load(bundled()[name].read_text(encoding="utf-8"))
    return {key: value for key, value in document.items() if key not in ("name", "note", "extends")}


def _base(name: str) -> str | None:
    base: str | None = YAML(typ="safe", pure=True).load(bundled()[name].read_text(encoding="utf-8")).get("extends")
    return base


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("name", list(bundled()))
def test_a_bundled_recipe_is_valid_and_its_parts_build(name: str, catalog: Catalog) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name
    parts = RunContext(recipe, catalog)
    assert {row["kind"] for row in parts.provenance()} == {*PARTS, "trainer"}
    assert set(parts.baselines) <= {row["name"] for row in parts.provenance() if row["kind"] == "selector"}
    assert bundled()[name].read_text(encoding="utf-8").startswith("# "), "its first line is what `recipes` prints"


@pytest.mark.parametrize("name", [name for name in bundled() if _base(name)])
def test_a_variant_differs_from_its_base_in_what_it_lists(name: str) -> None:
    base = _base(name)
    assert base is not None
    ours, theirs = (dict(_flat(Recipe.load(n).values())) for n in (name, base))
    differ = {key for key in ours.keys() | theirs.keys() if ours.get(key, ours) != theirs.get(key, theirs)}
    listed = {key for key, _ in _flat(_written(name))}
    # A part of another name replaces the whole part, with its settings.
    replaced = {key for key in PARTS if f"{key}.name" in differ and f"{key}.name" in listed}
    differ = {key for key in differ if key.partition(".")[0] not in replaced or key in ours} - {"name", "note"}
    assert differ == listed - _said_again(name, base)


def _said_again(name: str, base: str) -> set[str]:
    """Defaults written out for the reader beside a difference in the same section."""
    theirs = dict(_flat(Recipe.load(base).values()))
    return {key for key, value in _flat(_written(name)) if key in theirs and theirs[key] == value}


@pytest.mark.parametrize(
    ("name", "base", "sections"),
    [
        ("okvqa-3b-all", "okvqa-qwen2.5-vl-3b", {"balancer"}),
        ("okvqa-3b-mined", "okvqa-3b-all", {"scoring.mining"}),
        ("okvqa-3b-top-pn", "okvqa-3b-mined", {"balancer"}),
        ("okvqa-3b-ratio", "okvqa-3b-top-pn", {"balancer"}),
        ("okvqa-3b-no-drop", "okvqa-3b-top-pn", {"balancer"}),
        ("okvqa-3b-limit", "okvqa-3b-top-pn", {"balancer"}),
        ("okvqa-3b-query-ratio", "okvqa-3b-top-pn", {"balancer"}),
        ("okvqa-3b-mixed", "okvqa-3b-top-pn", {"reward"}),
        ("vqav2-qwen2.5-vl-3b", "okvqa-qwen2.5-vl-3b", {"dataset"}),
    ],
)
def test_a_variant_is_one_difference(name: str, base: str, sections: set[str]) -> None:
    assert _base(name) == base
    assert all(any(key.startswith(f"{section}.") for section in sections) for key, _ in _flat(_written(name)))
    assert Recipe.load(name).fingerprint() != Recipe.load(base).fingerprint()


REPORT = "okvqa-3b-report-baseline", "okvqa-3b-report-merged", "okvqa-3b-report-balanced"


@pytest.mark.parametrize("name", REPORT)
def test_the_report_s_recipes_hold_its_settings(name: str, catalog: Catalog) -> None:
    recipe = Recipe.load(name)
    assert (recipe.sampler.name, recipe.sampler.settings) == ("random", {"k": 64})
    assert (recipe.prompt.order, recipe.prompt.template) == ("prepend", "single_turn")
    assert post_process("Shorts", recipe.prompt) == "" and post_process("red, white", recipe.prompt) == "red"
    assert recipe.prompt.system.startswith("In the upcoming task") and recipe.prompt.system.endswith("tokens either.")
    trainers = RunContext(recipe, catalog).trainers
    assert {name for name, trainer in trainers.items() if trainer.epochs} == {"sft", "rce"}
    assert trainers["rce"].within == "question"
    assert recipe.evaluation.order == "seeded"
    assert Recipe.load(name, ["evaluation.order=first"]).evaluation.order == "first"


def test_the_report_s_sets_differ_as_it_says() -> None:
    baseline, merged, balanced = map(Recipe.load, REPORT)
    assert [recipe.reward.name for recipe in (baseline, merged, balanced)] == [
        "hard_plus_soft", "hard_plus_soft", "separated",
    ]  # fmt: skip
    assert [recipe.scoring.mining.min_positives > 0 for recipe in (baseline, merged, balanced)] == [False, True, True]
    assert merged.balancer.settings == {"min_pos": 1} and baseline.balancer.settings == {}
    assert balanced.balancer.settings == {"p": 10, "n": 0, "min_pos": 3}


def test_only_the_report_s_recipes_claim_to_be_the_report_s() -> None:
    for name, path in bundled().items():
        assert ("report" in path.read_text(encoding="utf-8").lower()) == (name in REPORT), name


def test_the_layout_recipe_trains_nothing_and_asks_for_answers_only(catalog: Catalog, tmp_path: Path) -> None:
    recipe = Recipe.load("okvqa-3b-layout")
    context = RunContext(recipe, catalog)
    assert not context.policies and not context.learns_from_candidates
    assert list(context.baselines) == ["zero_shot", "random"] and recipe.evaluation.shots == (1, 2, 4)
    found = plan(context)
    assert sum(sum(stage.logprobs.values()) for stage in found.stages) == 0


def test_the_3b_recipe_is_what_the_pages_say() -> None:
    recipe = Recipe.load("okvqa-qwen2.5-vl-3b")
    assert recipe.sampler.settings == {"k": 64, "text": 0.25, "image": 0.25}
    assert (recipe.scoring.questions, recipe.scoring.beam_search.num_beams, recipe.scoring.beam_search.shots) == (
        800,
        5,
        2,
    )
    decoding = recipe.decoding.decoding()
    assert (decoding.max_new_tokens, decoding.num_beams, decoding.length_penalty) == (5, 3, 0.0)
    assert recipe.evaluation.shots == (1, 2, 3, 4) and recipe.evaluation.sizes == (100, 200, 400, 800)
    assert recipe.model.settings["dtype"] == "bfloat16" and len(recipe.model.settings["revision"]) == 40
    mined = Recipe.load("okvqa-3b-top-pn").scoring.mining.min_positives
    assert mined > 0 == Recipe.load("okvqa-3b-all").scoring.mining.min_positives


@pytest.mark.parametrize("name", [name for name in bundled() if "3b" in name and name != "okvqa-3b-layout"])
def test_a_3b_recipe_can_be_planned_before_anything_is_there(
    name: str, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = plan(RunContext(Recipe.load(name), catalog))
    assert "official counts" in found.planning.note and found.planning.image_tokens == 391
    assert found.prompts > 400_000 and found.disk["encoded images"] > 10**10
    assert found.rows(Throughput(50))[-1]["hours"] < found.rows(Throughput())[-1]["hours"]
    assert not list(tmp_path.iterdir())


def test_every_variant_runs_on_the_demo(catalog: Catalog, tmp_path: Path) -> None:
    """The same recipe files, another dataset and model; equal stages are shared."""
    url = f"sqlite:///{tmp_path}/r.db"
    reused: dict[str, set[str]] = {}
    for name in VARIANTS:
        result = run(Recipe.load(name, SMALL, ON_THE_DEMO), url, tmp_path / "work", catalog=catalog)
        reused[name] = {stage for stage, state in result.stages.items() if state == "reused"}
        assert result.stages["evaluate"] == "done" and result.stages["rce"] == "done", name
        assert (result.stages["mine"] == "off") == (name == "okvqa-3b-all")
        methods = {cell["method"] for cell in Registry(url).cells([result.run_id])}
        assert {"zero_shot", "random", "sft", "rce", "mrt", "oracle"} <= methods
    # Nothing in okvqa-3b-all reads a probability; mining and top_pn do, so that its candidates are measured again.
    scored = {"encode", "pool", "beam_search", "sft", "choose_baseline"}
    assert reused["okvqa-3b-mined"] == scored
    scored |= {"propose"}
    assert all(reused[name] == scored | {"mine"} for name in VARIANTS[2:-1])
    assert reused["okvqa-3b-mixed"] == scored | {"mine", "balance"}
