"""A plan against what small demo runs really ask: never less, and equal where nothing is asked twice."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core.errors import DataError
from leverplus_core.pipeline.context import STAGES, RunContext
from leverplus_core.pipeline.plan import (
    Facts,
    Plan,
    StagePlan,
    Throughput,
    candidate_prompts,
    facts_of,
    plan,
    search_prompts,
)
from leverplus_core.pipeline.run import run
from leverplus_core.plugins.contracts import Model, Size
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import BeamSettings, CandidateSettings, PromptSettings
from leverplus_core.records import AnswerLogprob, Decoding, Demonstration, Image, Prompt, Question
from leverplus_core.registry.registry import Registry
from leverplus_core.scoring.beam_search import beam_search
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.scoring.scorer import Scorer

SMALL = [
    "dataset.train=60", "dataset.validation=24", "sampler.k=6", "scoring.questions=20",
    "scoring.beam_search={num_beams: 2, shots: 2}", "scoring.candidates.num_beams=2", "scoring.candidates.retrieval=2",
    "training.sft.epochs=1", "training.rce.epochs=1", "training.grpo.epochs=1", "selector.width=32",
    "evaluation.shots=[1, 2]", "evaluation.sizes=[10, 20]", "evaluation.oracle={num_beams: 2, expand_top_k: 3}",
    "balancer={name: keep_all}", "threads=1",
]  # fmt: skip


def _planned(recipe: Recipe, catalog: Catalog) -> Plan:
    parts = RunContext(recipe, catalog)
    return plan(recipe, facts_of(parts))


def _stage(found: Plan, name: str) -> StagePlan:
    return next(stage for stage in found.stages if stage.stage == name)


def _stored(work: Path) -> int:
    import sqlite3

    with sqlite3.connect(work / "responses.sqlite") as db:
        return int(db.execute("SELECT count(*) FROM measurements").fetchone()[0])


def test_candidates_that_nothing_would_learn_from_are_not_measured(catalog: Catalog) -> None:
    planned = _planned(Recipe.load("demo", [*SMALL, "training.rce.epochs=0", "training.grpo.epochs=0"]), catalog)
    assert [stage.stage for stage in planned.stages] == ["encode", "pool", "beams", "sft", "evaluate"]


@pytest.mark.parametrize(
    "beams", ["{num_beams: 2, shots: 2}", "{num_beams: 2, shots: 2, expand_top_k: 3}", "{num_beams: 3, shots: 3}"]
)
def test_a_beam_search_asks_exactly_what_is_planned(catalog: Catalog, tmp_path: Path, beams: str) -> None:
    recipe = Recipe.load("demo", [*SMALL, f"scoring.beam_search={beams}"])
    planned = _stage(_planned(recipe, catalog), "beams")
    asked = run(recipe, f"sqlite:///{tmp_path}/r.db", tmp_path, until="beams", catalog=catalog).calls
    assert asked == planned.prompts == _stored(tmp_path)


def test_a_whole_run_asks_no_more_than_planned_and_not_much_less(catalog: Catalog, tmp_path: Path) -> None:
    loop = "training.online={rounds: 2, candidates: {shots: [0, 1, 2], num_beams: 1, samples: {1.0: 2}}}"
    mining = "scoring.mining={min_positives: 99, rounds: 2, candidates_per_round: 2}"
    recipe = Recipe.load("demo", [*SMALL, loop, mining, "selector.stop=true"])
    found = _planned(recipe, catalog)
    assert [stage.stage for stage in found.stages] == list(STAGES)
    url = f"sqlite:///{tmp_path}/r.db"
    before, stored = 0, 0
    # The on-policy loop and the learned methods choose many sequences that are known already.
    for until, least in {"num_beams": 1.0, "candidates": 0.6, "mine": 0.7, "online": 0.05, "evaluate": 0.5}.items():
        result = run(recipe, url, tmp_path, until=until, catalog=catalog)
        planned = _stage(found, until).prompts
        assert least * planned <= result.calls <= planned, (until, result.calls, planned)
        before, stored = before + result.calls, _stored(tmp_path)
    assert before == stored <= found.prompts
    [[rows]] = Registry(url).sql("SELECT count(*) FROM predictions")[1]
    assert rows == found.prediction_rows
    size: Counter[str] = Counter()
    for path in tmp_path.rglob("*"):
        size[path.name] += path.stat().st_size
    assert size["features.npz"] < sum(v for k, v in found.disk.items() if k.startswith("features"))
    assert size["pools.json"] < found.disk["pools"]
    lines = [size[f"{name}.jsonl"] for name in ("beams", "candidates", "balanced")]
    assert all(lines) and sum(lines) < found.disk["beams and candidates"]


def test_a_row_of_the_store_and_of_the_registry_is_no_larger_than_planned(tmp_path: Path) -> None:
    from leverplus_core.pipeline.plan import MEASUREMENT_BYTES

    store = ResponseCache(tmp_path / "m.sqlite")
    for start in range(0, 20_000, 1000):
        keys = [__import__("hashlib").sha256(f"{i}".encode()).digest() for i in range(start, start + 1000)]
        store.put([(key, json.dumps([-12.345678901234567, 3])) for key in keys])
    store.close()
    assert (tmp_path / "m.sqlite").stat().st_size <= 20_000 * MEASUREMENT_BYTES


class _Pseudo(Model):
    """Log-probabilities from a hash of the prompt."""

    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[AnswerLogprob]:
        return [AnswerLogprob(-(hash((p, a)) % 997) / 997, 1) for p, a in zip(prompts, answers, strict=True)]

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        return ["a" for _ in prompts]


@given(
    pool=st.integers(1, 6), beam=st.integers(1, 8), shots=st.integers(1, 4), width=st.none() | st.integers(1, 6)
)  # fmt: skip
def test_the_formula_bounds_the_real_search(
    tmp_path_factory: pytest.TempPathFactory, pool: int, beam: int, shots: int, width: int | None
) -> None:
    shots = min(shots, pool)
    question = Question("q", "?", Image("i"), ("a",))
    demonstrations = {f"d{i}": Demonstration(f"d{i}", f"{i}", Image(f"d{i}"), "x") for i in range(pool)}
    store = ResponseCache(tmp_path_factory.mktemp("s") / "m.sqlite")
    model = CachedModel(_Pseudo, lambda: "pseudo", store)
    scorer = Scorer(model, demonstrations, PromptSettings(), Decoding())
    settings = BeamSettings(num_beams=beam, shots=shots, expand_top_k=width)
    beam_search(scorer, [question], {"q": list(demonstrations)}, settings)
    store.close()
    planned = sum(search_prompts(pool, settings).values())
    extensions = pool if width is None else min(pool, max(width, shots))
    assert model.calls <= planned
    if min(beam, pool) <= extensions or shots < 3:
        assert model.calls == planned


def test_candidates_by_hand() -> None:
    settings = CandidateSettings(shots=(1, 2), num_beams=5, samples={1.0: 1, 1.3: 1}, retrieval=5, random=1)
    assert candidate_prompts(64, settings) == {1: 13, 2: 13}
    assert candidate_prompts(3, settings) == {1: 3, 2: 6}  # no more sequences than the pool has


def test_the_3b_recipe_by_hand() -> None:
    """domain.md's 385 prompts a question are 380 when a sequence never repeats a demonstration."""
    recipe = Recipe.of(
        {
            "scoring": {"questions": 800, "beam_search": {"num_beams": 5, "shots": 2}},
            "evaluation": {"oracle": {"num_beams": 3, "expand_top_k": 8}},
        }
    )
    found = plan(recipe, Facts(Size(9009, 5046, 8998, 5033), 64, image_tokens=391))
    beams, evaluate = _stage(found, "beams"), _stage(found, "evaluate")
    assert beams.logprobs == {0: 800, 1: 51_200, 2: 252_000} and not beams.answers
    assert beams.images == 8998  # 800 x 65 could show all of them
    assert evaluate.logprobs == {0: 800, 1: 51_200, 2: 16_800, 3: 14_400, 4: 12_000}
    per_shot = 3 + 2 + 3  # random and two neighbours; SFT and RCE; the oracle's three kept
    assert evaluate.answers == {0: 800, **dict.fromkeys((1, 2, 3, 4), 800 * per_shot)}
    assert evaluate.images == 800
    hours = (800 * 1 + 51_200 * 2 + 252_000 * 3) / 3 / 10 / 3600 + 8998 / 20 / 3600
    assert beams.hours(Throughput(10, 20)) == pytest.approx(hours)


def test_states_are_asked_once_a_question() -> None:
    found = plan(Recipe(), Facts(Size(100, 20, 90, 20), 32, states=4))
    assert _stage(found, "encode").logprobs == {4: 120}
    assert _stage(found, "beams").images == 0  # all pictures were shown already
    assert not _stage(plan(Recipe(), Facts(Size(100, 20, 90, 20), 32)), "encode").logprobs


def test_mining_and_the_loop_by_hand() -> None:
    recipe = Recipe.of(
        {
            "scoring": {
                "questions": 10,
                "mining": {"min_positives": 2, "rounds": 3, "candidates_per_round": 4, "shots": [1, 2]},
            },
            "training": {"online": {"rounds": 5}},
        }
    )
    metadata = Facts(Size(100, 50, 100, 50), 64)
    found = plan(recipe, metadata)
    mine, online = _stage(found, "mine"), _stage(found, "online")
    assert mine.logprobs == mine.answers == {2: 10 * 12}
    sequences = 2 + 4  # beams and samples of the loop's own defaults; no retrieval, no random
    assert online.answers == {1: 10 * 5 * sequences, 2: 10 * 5 * sequences}
    assert online.logprobs == {2: 10 * 5 * sequences}
    dear = recipe.model_dump()
    dear["scoring"]["mining"]["budget"], dear["training"]["online"]["budget"] = 101, 400
    within = plan(Recipe.of(dear), metadata)
    assert (_stage(within, "mine").prompts, _stage(within, "online").prompts) == (100, 400)


def test_what_is_imported_is_not_asked() -> None:
    recipe, metadata = Recipe.load("demo", SMALL), Facts(Size(60, 24, 60, 24), 6)
    given = replace(metadata, given=frozenset({"beams", "candidates"}))
    whole, found = plan(recipe, metadata), plan(recipe, given)
    assert [s.stage for s in found.stages] == [s.stage for s in whole.stages if s.stage not in given.given]
    assert found.prompts == _stage(whole, "evaluate").prompts


@pytest.mark.parametrize("encoder_is_vlm", [False, True])
def test_images_add_up_to_no_more_than_there_are(encoder_is_vlm: bool) -> None:
    size = Size(50, 20, 45, 20)
    for questions, k in itertools.product((1, 3, 40), (2, 10)):
        recipe = Recipe.of({"scoring": {"questions": questions}, "evaluation": {"sizes": [10]}})
        found = plan(recipe, Facts(size, k, encoder_is_vlm))
        counts = Counter({stage.stage: stage.images for stage in found.stages})
        assert counts["encode"] == 65
        seen_later = counts.total() - 65
        assert seen_later == 0 if encoder_is_vlm else seen_later <= min(65, (questions + 10) * (k + 1))


def _absent(tmp_path: Path, *more: str) -> Recipe:
    dataset = f"dataset={{name: vqa_json, release: okvqa, folder: '{tmp_path}/none', images: '{tmp_path}'}}"
    return Recipe.load("demo", [dataset, *more])


def test_official_counts_stand_in_for_files_that_are_absent(catalog: Catalog, tmp_path: Path) -> None:
    found = _planned(_absent(tmp_path, "dataset.train_limit=100"), catalog)
    assert found.metadata.size == Size(100, 5046, 100, 5033)
    assert "official counts" in found.metadata.note


def test_a_dataset_of_unknown_size_is_an_error(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none"):
        _planned(_absent(tmp_path, "dataset.release=null"), catalog)


def test_rows_are_json_and_add_up(catalog: Catalog) -> None:
    found = _planned(Recipe.load("demo", SMALL), catalog)
    rows: list[dict[str, Any]] = json.loads(json.dumps(found.rows(Throughput())))
    *stages, total = rows
    assert total["stage"] == "total" and total["logprobs"] + total["answers"] == found.prompts
    assert total["hours"] == pytest.approx(sum(row["hours"] for row in stages))
    assert stages[2]["visual_tokens"] == 4 * _stage(found, "beams").images_shown  # 56 x 56 pixels are 4 tokens
