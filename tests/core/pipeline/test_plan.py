"""A plan against what small runs really ask: never less, and equal where nothing is asked twice."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core.candidates.store import read_groups
from leverplus_core.errors import DataError
from leverplus_core.metrics import distinct_answers
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.plan import RESPONSE_BYTES, Plan, StagePlan, Throughput, plan
from leverplus_core.pipeline.stages import STAGE_NAMES
from leverplus_core.plugins.contracts import Model, Size
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import BASELINES, BeamSettings, CandidateSettings, PromptSettings
from leverplus_core.records import AnswerLogprob, Decoding, Demonstration, Image, Prompt, Question
from leverplus_core.registry.registry import Registry
from leverplus_core.scoring.beam_search import beam_search, beam_search_cost
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.scoring.scorer import Scorer

Tiny = Callable[..., Recipe]
ABSENT = "dataset={name: vqa_json, release: okvqa, folder: nowhere, images: nowhere}"


def _stage(found: Plan, name: str) -> StagePlan:
    return next(stage for stage in found.stages if stage.stage == name)


def _stored(work: Path) -> int:
    with sqlite3.connect(work / "responses.sqlite") as db:
        return int(db.execute("SELECT count(*) FROM responses").fetchone()[0])


@pytest.mark.parametrize(
    "beams",
    [
        "{num_beams: 2, shots: 2}",
        "{num_beams: 2, shots: 2, expand_top_k: 3}",
        "{num_beams: 3, shots: 3}",
        "{num_beams: 2, shots: 2, screen: 3}",
        "{num_beams: 2, shots: 2, screen: 9}",
    ],
)
def test_a_beam_search_asks_exactly_what_is_planned(tiny: Tiny, world: Any, beams: str) -> None:
    recipe = tiny(f"scoring.beam_search={beams}")
    planned = _stage(plan(RunContext(recipe, world.catalog)), "beam_search")
    asked = world.run(recipe, until="beam_search").calls
    assert asked == planned.prompts == _stored(world.work)


def test_a_whole_run_asks_no_more_than_planned_and_not_much_less(tiny: Tiny, world: Any) -> None:
    recipe = tiny(
        "scoring.mining={min_positives: 99, rounds: 2, candidates_per_round: 2}",
        "training.online={rounds: 2, candidates: {shots: [0, 1, 2], num_beams: 1, samples: {1.0: 2}}}",
        "selector.stop=true", "sampler.k=6", "training.mrt.epochs=1",
    )  # fmt: skip
    found = plan(RunContext(recipe, world.catalog))
    assert tuple(stage.stage for stage in found.stages) == STAGE_NAMES
    before, stored = 0, 0
    # The on-policy loop and the trained policies choose many sequences that are known already.
    least_of = {
        "beam_search": 1.0,
        "propose": 0.6,
        "mine": 0.7,
        "online": 0.05,
        "choose_baseline": 0.5,
        "evaluate": 0.5,
    }
    for until, least in least_of.items():
        result = world.run(recipe, until=until)
        planned = _stage(found, until).prompts
        assert least * planned <= result.calls <= planned, (until, result.calls, planned)
        before, stored = before + result.calls, _stored(world.work)
    assert before == stored <= found.prompts
    [[rows]] = Registry(world.url).sql("SELECT count(*) FROM predictions")[1]
    assert rows == found.prediction_rows
    size: Counter[str] = Counter()
    for path in world.work.rglob("*"):
        size[path.name] += path.stat().st_size
    assert size["features.npz"] < sum(v for k, v in found.disk.items() if k.startswith("features"))
    assert size["pools.json"] < found.disk["pools"]
    lines = [size[f"{name}.jsonl"] for name in ("beams", "candidates", "balanced")]
    assert all(lines) and sum(lines) < found.disk["sequences and candidates"]


def test_every_baseline_asks_no_more_than_planned(tiny: Tiny, world: Any) -> None:
    """What `fixed` asks to choose counts once, however many questions are evaluated."""
    baselines = (
        "[zero_shot, random, text_knn, image_knn, text_image_knn, bank_knn, bm25, "
        "{name: fixed, sets: 4, questions: 7}, {name: oracle, num_beams: 2, exhaustive_one_shot: true}]"
    )
    training = [f"training.{name}.epochs=0" for name in ("sft", "rce", "grpo")]
    recipe = tiny(*training, f"evaluation.baselines={baselines}", "scoring.questions=8")
    found = plan(RunContext(recipe, world.catalog))
    assert [stage.stage for stage in found.stages if stage.prompts] == ["choose_baseline", "evaluate"]
    before = world.run(recipe, until="choose_baseline").calls
    assert 0.6 * _stage(found, "choose_baseline").prompts <= before <= _stage(found, "choose_baseline").prompts
    asked = world.run(recipe).calls
    assert 0.6 * _stage(found, "evaluate").prompts <= asked <= _stage(found, "evaluate").prompts
    assert before + asked == _stored(world.work) <= found.prompts
    registry = Registry(world.url)
    methods = {cell["method"] for cell in registry.cells([registry.runs()[0]["id"]])}
    assert methods == {spec.name for spec in recipe.evaluation.baselines} == set(BASELINES)


def test_a_row_of_the_response_cache_is_no_larger_than_planned(tmp_path: Path) -> None:
    store = ResponseCache(tmp_path / "m.sqlite")
    for start in range(0, 20_000, 1000):
        keys = [hashlib.sha256(f"{i}".encode()).digest() for i in range(start, start + 1000)]
        store.put([(key, json.dumps([-12.345678901234567, 3])) for key in keys])
    store.close()
    assert (tmp_path / "m.sqlite").stat().st_size <= 20_000 * RESPONSE_BYTES


class _Pseudo(Model):
    """Log-probabilities from a hash of the prompt."""

    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> list[AnswerLogprob]:
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
    planned = sum(beam_search_cost(pool, settings).values())
    extensions = pool if width is None else min(pool, max(width, shots))
    assert model.calls <= planned
    if min(beam, pool) <= extensions or shots < 3:
        assert model.calls == planned


def test_candidates_by_hand() -> None:
    settings = CandidateSettings(shots=(1, 2), num_beams=5, samples={1.0: 1, 1.3: 1}, retrieval=5, random=1)
    assert settings.counts(64) == {1: 13, 2: 13}
    assert settings.counts(3) == {1: 3, 2: 6}  # no more sequences than the pool has


def test_the_3b_recipe_by_hand(tiny_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """domain.md's 385 prompts per question are 380 when a sequence never repeats a demonstration."""
    monkeypatch.chdir(tmp_path)
    values = {
        "scoring": {"questions": 800, "beam_search": {"num_beams": 5, "shots": 2}},
        "sampler": {"name": "random", "k": 64},
        "model": {"name": "tiny"},
    }
    recipe = Recipe.load("demo", [ABSENT]).values()
    found = plan(RunContext(Recipe.of({"dataset": recipe["dataset"], **values}), tiny_catalog))
    assert found.planning.size == Size(9009, 5046, 8998, 5033)
    beams, evaluate = _stage(found, "beam_search"), _stage(found, "evaluate")
    assert beams.logprobs == {0: 800, 1: 51_200, 2: 252_000} and not beams.answers
    assert _stage(found, "encode").images == 8998 + 5033 and beams.images == evaluate.images == 0
    assert evaluate.logprobs == {0: 800, 1: 51_200, 2: 16_800, 3: 14_400, 4: 12_000}
    # Random, three neighbors of the pool and two of the bank, and fixed; SFT and RCE; the oracle's three kept
    per_shot = 7 + 2 + 3
    halving = 8 * 10 + 4 * 18 + 2 * 36  # fixed: eight sets answer 10 questions, four 28, two 64
    assert evaluate.answers == {0: 2 * 800, **dict.fromkeys((1, 2, 3, 4), 800 * per_shot + halving)}
    hours = (800 * 1 + 51_200 * 2 + 252_000 * 3) / 3 / 10 / 3600
    assert beams.hours(Throughput(10, 20)) == pytest.approx(hours)
    assert _stage(found, "encode").hours(Throughput(10, 20)) == pytest.approx((8998 + 5033) / 20 / 3600)


def test_hidden_states_are_asked_for_once_per_question(tiny: Tiny, tiny_catalog: Catalog) -> None:
    found = plan(RunContext(tiny("encoder.hidden_states=4"), tiny_catalog))
    assert _stage(found, "encode").logprobs == {4: 24 + 12} and _stage(found, "encode").images == 24 + 12
    assert _stage(found, "beam_search").images == 0  # the model has seen all images already
    without = plan(RunContext(tiny(), tiny_catalog))
    assert not _stage(without, "encode").logprobs and _stage(without, "beam_search").images == 24


def test_mining_and_the_loop_by_hand(tiny: Tiny, tiny_catalog: Catalog) -> None:
    mining = "min_positives: 2, rounds: 3, candidates_per_round: 4, shots: [1, 2]"

    def planned(budgets: tuple[str, str] = ("", "")) -> tuple[StagePlan, StagePlan]:
        overrides = ["dataset={name: tiny, train: 100, validation: 50}", "sampler={name: random, k: 64}"]
        overrides += ["scoring.questions=10", f"scoring.mining={{{mining}{budgets[0]}}}"]
        recipe = tiny(*overrides, f"training.online={{rounds: 5{budgets[1]}}}")
        found = plan(RunContext(recipe, tiny_catalog))
        return _stage(found, "mine"), _stage(found, "online")

    mine, online = planned()
    assert mine.logprobs == mine.answers == {2: 10 * 12}
    sequences = 2 + 4  # beams and samples of the loop's own defaults; no retrieval, no random
    # Of ten questions at most seven are for validation, at 1.5 expected and a deviation of 1.1; four epochs a round,
    # with the one before it.
    judged = 7 * 5 * 4
    assert online.answers == {1: 10 * 5 * sequences + judged, 2: 10 * 5 * sequences + judged}
    assert online.logprobs == {2: 10 * 5 * sequences}
    assert [stage.prompts for stage in planned((", budget: 101", ", budget: 400"))] == [100, 400 + 2 * judged]


@pytest.mark.parametrize(
    ("parts", "more", "measured"),
    [
        ({}, (), False),
        ({"reward": "soft_only", "balancer": "query_ratio"}, (), False),
        ({"reward": "hard_plus_gt_prob:prob=0"}, (), False),
        ({"reward": "hard_plus_gt_prob"}, (), True),
        ({"reward": "info_score"}, (), True),
        ({"balancer": "top_pn:min_pos=0"}, (), True),
        ({"balancer": "limit"}, (), False),
        ({"balancer": "limit:order=best"}, (), True),
        ({}, ("scoring.mining={min_positives: 1, swap: 0}",), False),
        ({}, ("scoring.mining={min_positives: 1, swap: 0.5}",), True),
        ({}, ("stages=[shortest]",), True),
    ],
)
def test_probabilities_are_measured_where_something_reads_them(
    tiny: Tiny, tiny_catalog: Catalog, parts: dict[str, str], more: tuple[str, ...], measured: bool
) -> None:
    context = RunContext(tiny(*more, **parts), tiny_catalog)
    propose = _stage(plan(context), "propose")
    assert context.measures_probabilities == context.scorer.probabilities == measured
    assert propose.answers == {1: 20 * 4, 2: 20 * 4}
    assert propose.logprobs == ({2: 20 * 4} if measured else {})
    context.close()


def test_answers_alone_are_asked_and_kept(tiny: Tiny, world: Any) -> None:
    world.run(tiny(), until="sft")
    alone = world.run(tiny(), until="propose")
    groups = read_groups(next(world.work.glob("stages/propose-*")) / "candidates.jsonl")
    candidates = [c for group in groups.values() for c in group]
    assert alone.calls <= len(candidates)  # some were asked to choose SFT's epoch
    assert all(c.logprob is None and c.info_score is None for c in candidates)
    whole = world.run(tiny(reward="separated_gt_prob"), until="propose")
    assert whole.stages["sft"] == "reused" and whole.stages["propose"] == "done"
    pairs = sum(len(c.demonstrations) == 2 for c in candidates)  # the search has measured each demonstration alone
    assert 0 < whole.calls <= pairs < len(candidates)


def test_each_true_answer_is_a_log_probability(tiny_catalog: Catalog, tmp_path: Path) -> None:
    data = "dataset={name: demo_world, train: 60, validation: 20, cache: '" + str(tmp_path) + "'}"
    recipe = Recipe.load("demo", [data, "sampler.k=5", "scoring.questions=10", "model={name: tiny}"])
    one, every = (
        plan(
            RunContext(Recipe.of({**recipe.values(), "scoring": {**recipe.values()["scoring"], **more}}), tiny_catalog)
        )
        for more in ({}, {"reference": "all", "end_mark": True})
    )
    context = RunContext(recipe, tiny_catalog)
    counts = [len(distinct_answers(q.answers)) for q in context.dataset.questions("train")]
    assert every.planning.true_answers == pytest.approx(sum(counts) / 60) and 1 < every.planning.true_answers < 4
    before, after = _stage(one, "beam_search").logprobs, _stage(every, "beam_search").logprobs
    assert after == {n: math.ceil(count * every.planning.true_answers) for n, count in before.items()}
    assert _stage(one, "evaluate").answers == _stage(every, "evaluate").answers
    absent = plan(
        RunContext(Recipe.load("demo", [ABSENT, "scoring.reference=all", "model={name: tiny}"]), tiny_catalog)
    )
    assert absent.planning.true_answers == 10 and "Ten distinct answers" in absent.planning.note


def test_what_is_imported_is_not_asked(tiny: Tiny, finished: tuple[Any, Any]) -> None:
    world, _ = finished
    [candidates] = world.work.glob("stages/propose-*/candidates.jsonl")
    found = plan(RunContext(tiny(f"imported.folder={candidates}"), world.catalog, world.folder / "plan"))
    whole = plan(RunContext(tiny("training.sft.epochs=0"), world.catalog))
    absent = {"beam_search", "propose"}  # and with them what the SFT learns from
    assert [s.stage for s in found.stages] == [s.stage for s in whole.stages if s.stage not in absent]
    asked = ("rce", "grpo", "choose_baseline", "evaluate")  # the first two to choose their epochs
    assert found.prompts == sum(_stage(whole, stage).prompts for stage in asked)


def test_the_epoch_is_chosen_by_answers_or_without_a_prompt(tiny: Tiny, world: Any, tiny_catalog: Catalog) -> None:
    planned = plan(RunContext(tiny(), tiny_catalog))
    # Of 20 questions three are expected for validation, and at most ten planned; one epoch and the policy as it came.
    assert _stage(planned, "sft").answers == {1: 20, 2: 20} and not _stage(planned, "sft").logprobs
    world.run(tiny(), until="beam_search")
    asked = world.run(tiny(), until="sft").calls
    assert 0 < asked <= 40
    silent = tiny("training.judge.by=candidates")
    assert not any(_stage(plan(RunContext(silent, tiny_catalog)), stage).prompts for stage in ("sft", "rce", "grpo"))
    assert world.run(silent, until="sft").calls == 0
    world.run(silent, until="balance")
    assert world.run(silent, until="grpo").calls == 0


@pytest.mark.parametrize("encoder", ["tiny", "vlm"])
def test_images_add_up_to_no_more_than_there_are(tiny: Tiny, tiny_catalog: Catalog, encoder: str) -> None:
    data = "dataset={name: tiny, train: 50, validation: 20, per_image: 2}"
    for questions, k in itertools.product((1, 3, 40), (2, 10)):
        recipe = tiny(
            data, f"sampler.k={k}", f"scoring.questions={questions}", "evaluation.sizes=[10]",
            "evaluation.baseline_questions=3", encoder=encoder,
        )  # fmt: skip
        found = plan(RunContext(recipe, tiny_catalog))
        assert found.planning.size == Size(50, 20, 25, 20)
        counts = Counter({stage.stage: stage.images for stage in found.stages})
        assert counts["encode"] == 45
        seen_later = counts.total() - 45
        assert seen_later == 0 if encoder == "vlm" else 0 < seen_later <= min(45, (questions + 3 + 10) * (k + 1))


def test_official_counts_stand_in_for_files_that_are_absent(
    tiny_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = plan(RunContext(Recipe.load("demo", [ABSENT, "dataset.train_limit=100"]), tiny_catalog))
    assert found.planning.size == Size(100, 5046, 100, 5033)
    assert "official counts" in found.summary(Throughput())["note"]
    assert not list(tmp_path.iterdir())


def test_a_dataset_of_unknown_size_is_an_error(tiny_catalog: Catalog) -> None:
    with pytest.raises(DataError, match="nowhere"):
        plan(RunContext(Recipe.load("demo", [ABSENT, "dataset.release=null"]), tiny_catalog))


def test_rows_are_json_and_add_up(catalog: Catalog) -> None:
    found = plan(RunContext(Recipe.load("demo", ["dataset.train=60", "dataset.validation=24"]), catalog))
    rows: list[dict[str, Any]] = json.loads(json.dumps(found.rows(Throughput())))
    *stages, total = rows
    assert total["stage"] == "total" and total["logprobs"] + total["answers"] == found.prompts
    assert total["hours"] == pytest.approx(sum(row["hours"] for row in stages))
    beams = next(row for row in stages if row["stage"] == "beam_search")
    assert beams["visual_tokens"] == 4 * _stage(found, "beam_search").images_shown  # 56 x 56 pixels are 4 tokens
