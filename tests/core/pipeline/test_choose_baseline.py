"""The best baseline is chosen on held-out train questions; other held-out questions may be evaluated."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.errors import DataError
from leverplus_core.io import read_json, read_jsonl
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.pipeline.plan import plan
from leverplus_core.pipeline.run import RunResult
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.records import Decoding
from leverplus_core.registry.registry import Registry
from leverplus_core.scoring.prompt import build_prompt

Tiny = Callable[..., Recipe]
Finished = tuple[Any, RunResult]
BASELINES = "evaluation.baselines=[zero_shot, rule_first, random, {name: oracle, num_beams: 2, expand_top_k: 3}]"
NO_TRAINING = ("training.sft.epochs=0", "training.rce.epochs=0", "training.grpo.epochs=0")


def _chosen(world: Any) -> dict[str, Any]:
    return dict(world.provenance("choose_baseline")["metadata"])


def _folder(world: Any) -> Path:
    [folder] = world.work.glob("stages/choose_baseline-*")
    return Path(folder)


def test_the_best_is_that_of_the_means_by_hand(tiny: Tiny, world: Any) -> None:
    recipe = tiny(BASELINES, "scoring.questions=10", "evaluation.baseline_questions=9", *NO_TRAINING)
    result = world.run(recipe, until="choose_baseline")
    assert result.stages["choose_baseline"] == "done" and list(result.stages)[-1] == "choose_baseline"
    context = RunContext(recipe, world.catalog, world.work)
    [pools] = world.work.glob("stages/pool-*/pools.json")
    pool, questions = read_json(pools)["train"], context.question_sets.baseline
    demonstrations = {d.id: d for d in context.dataset.demonstrations()}
    means: dict[str, list[float]] = {"zero_shot": [], "rule_first": []}
    for method, shots in (("zero_shot", 0), ("rule_first", 1), ("rule_first", 2)):
        shown = [[demonstrations[d] for d in pool[q.id][:shots]] for q in questions]
        prompts = [build_prompt(ds, q, recipe.prompt) for ds, q in zip(shown, questions, strict=True)]
        answers = context.model.generate(prompts, Decoding())
        right = [answer == q.answers[0] for answer, q in zip(answers, questions, strict=True)]
        means[method].append(sum(right) / 9)
    found = _chosen(world)
    assert found["accuracies"]["zero_shot"] == pytest.approx(means["zero_shot"][0])
    assert found["accuracies"]["rule_first"] == pytest.approx(sum(means["rule_first"]) / 2)
    assert set(found["accuracies"]) == {"zero_shot", "rule_first", "random"}, "the oracle knows the true answers"
    best = max(found["accuracies"].values())
    assert found["accuracies"][found["best"]] == best and len(set(found["accuracies"].values())) > 1
    assert (found["questions"], found["source"], found["shots"]) == (9, "held_out", [1, 2])
    # The registry has what was found, and no cell of it.
    registry = Registry(world.url)
    [row] = [row for row in registry.stages(result.run_id) if row["name"] == "choose_baseline"]
    assert row["metadata"]["best"] == found["best"] and row["metadata"]["accuracies"] == found["accuracies"]
    assert not registry.cells([result.run_id])


def test_where_no_question_is_held_out_those_that_choose_the_epoch_choose_the_baseline(tiny: Tiny, world: Any) -> None:
    recipe = tiny(BASELINES, "scoring.questions=null", "training.validation_fraction=0.4")
    result = world.run(recipe)
    found, chosen = _chosen(world), Registry(world.url).validation_questions(result.run_id)
    asked = {row["question_id"] for row in read_jsonl(_folder(world) / "random-1.jsonl")}
    assert found["source"] == "validation_questions" and asked and asked == set(chosen)
    assert found["questions"] == len(asked)
    other, same = (
        Pipeline(RunContext(tiny(BASELINES, *more), world.catalog)).fingerprints["choose_baseline"]
        for more in (("seed=1", "scoring.questions=null"), ("seed=1",))
    )
    assert other != Pipeline(RunContext(recipe, world.catalog)).fingerprints["choose_baseline"], "the seed says which"
    assert same == Pipeline(RunContext(tiny(BASELINES), world.catalog)).fingerprints["choose_baseline"]


@pytest.mark.parametrize("split", ["validation", "held_out", "cross_fit"])
def test_what_learns_is_evaluated_and_is_no_baseline_to_beat(tiny: Tiny, world: Any, split: str) -> None:
    learner = "evaluation.baselines=[random, {name: two_tower, questions: 4, k: 4, epochs: 1}]"
    recipe = tiny(learner, "scoring.questions=10", "evaluation.folds=3", f"evaluation.split={split}", *NO_TRAINING)
    result = world.run(recipe)
    assert set(_chosen(world)["accuracies"]) == {"random"}
    assert {cell["method"] for cell in Registry(world.url).cells([result.run_id])} == {"random", "two_tower"}


def test_without_any_question_to_choose_on_nothing_is_named(tiny: Tiny, world: Any) -> None:
    recipe = tiny(BASELINES, "scoring.questions=null", "training.validation_fraction=0.0001", *NO_TRAINING)
    result = world.run(recipe, until="choose_baseline")
    found = _chosen(world)
    assert (found["best"], found["questions"], found["accuracies"]) == (None, 0, {}) and result.calls == 0


def test_each_fold_has_the_baseline_that_is_best_on_the_other_folds(tiny: Tiny, world: Any) -> None:
    crossed = ("evaluation.split=cross_fit", "evaluation.folds=3", "evaluation.sizes=[36]", "scoring.questions=null")
    recipe = tiny(BASELINES, *crossed, *NO_TRAINING)
    world.run(recipe, until="choose_baseline")
    found, folds = _chosen(world), RunContext(recipe, world.catalog, world.work).folds
    shots = {"zero_shot": [0], "rule_first": [1, 2], "random": [1, 2]}
    means: dict[str, dict[str, float]] = {fold: {} for fold in folds.names}
    for name, counts in shots.items():
        rows = [row for n in counts for row in read_jsonl(_folder(world) / f"{name}-{n}.jsonl")]
        assert len(rows) == 36 * len(counts), "every question of both splits"
        for fold in folds.names:
            others = [row["accuracy"] for row in rows if folds.of_question(row["question_id"]) != fold]
            assert len(others) == 24 * len(counts)
            means[fold][name] = sum(others) / len(others)
    assert found["by_fold"] == {fold: max(of, key=lambda name: of[name]) for fold, of in means.items()}
    named = list(found["by_fold"].values())
    assert found["source"] == "other_folds" and named.count(found["best"]) == max(map(named.count, named))


@pytest.mark.parametrize("override", ["evaluation.baseline_questions=0", "evaluation.baselines=[{name: oracle}]"])
def test_where_there_is_nothing_to_choose_the_stage_is_off(tiny: Tiny, world: Any, override: str) -> None:
    pipeline = Pipeline(RunContext(tiny(override), world.catalog))
    assert not pipeline.enabled["choose_baseline"] and "choose_baseline" not in pipeline.fingerprints


def test_held_out_questions_are_evaluated_and_those_of_validation_never_asked(
    tiny: Tiny, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = sys.modules["tiny_parts"].TinyModel, list[str]()
    for name in ("generate", "logprob"):
        real = getattr(model, name)

        def record(self: Any, prompts: Any, *given: Any, real: Any = real) -> Any:
            asked.extend(map(repr, prompts))
            return real(self, prompts, *given)

        monkeypatch.setattr(model, name, record)
    recipe = tiny("scoring.questions=10", "evaluation.split=held_out", "evaluation.baseline_questions=4")
    result = world.run(recipe)
    assert any("what is train" in prompt for prompt in asked)
    assert not [prompt for prompt in asked if "what is validation" in prompt]
    registry, sets = Registry(world.url), RunContext(recipe, world.catalog).question_sets
    cells = registry.cells([result.run_id])
    assert {cell["n"] for cell in cells} == {5, 10} and {"grpo", "oracle", "zero_shot"} <= {c["method"] for c in cells}
    for method, shots in {(cell["method"], cell["shots"]) for cell in cells}:
        answered = [p.question_id for _, p in registry.cell_predictions(result.run_id, method, shots)]
        assert answered == [q.id for q in sets.evaluated]
    tried = {row["question_id"] for row in read_jsonl(_folder(world) / "random-1.jsonl")}
    assert tried == {q.id for q in sets.baseline} and tried.isdisjoint(q.id for q in sets.evaluated)
    # From the finished folders another registry is filled with the same, and an audit asks the same again.
    other = f"sqlite:///{world.folder}/other.db"
    assert world.run(recipe, other).calls == 0
    assert world.results(result.run_id, other) == world.results(result.run_id)
    from leverplus_core.pipeline.audit import audit

    told = audit(registry, result.run_id, 30, world.work, world.catalog)
    assert told["asked_again"] == 30 and not told["differences"]


def test_no_question_held_out_is_one_line_before_anything_is_written(tiny: Tiny, world: Any) -> None:
    recipe = tiny("scoring.questions=null", "evaluation.split=held_out")
    for ask in (lambda: world.run(recipe), lambda: plan(RunContext(recipe, world.catalog))):
        with pytest.raises(DataError, match=r"none of the 24 train questions is held out: 24 are searched"):
            ask()
    assert not list(world.folder.iterdir())


def test_a_question_that_taught_a_policy_is_refused_on_every_split(tiny: Tiny, world: Any) -> None:
    recipe = tiny("scoring.questions=10", "evaluation.split=held_out", "evaluation.baseline_questions=4")
    world.run(recipe, until="grpo")
    asked = RunContext(recipe, world.catalog).question_sets.evaluated[0].id
    [file] = world.work.glob("stages/grpo-*/selector.json")
    content = json.loads(file.read_text())
    content["meta"]["learned_from"].append(asked)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"leak: 1 evaluation questions .* trained on: {asked}"):
        world.run(recipe)


def test_candidates_are_measured_for_questions_that_were_not_searched(tiny: Tiny, world: Any) -> None:
    recipe = tiny("scoring.questions=8", "scoring.candidates.questions=20")
    planned = {stage.stage: stage for stage in plan(RunContext(recipe, world.catalog)).stages}
    result = world.run(recipe, until="propose")
    assert 0.6 * planned["propose"].prompts <= _cost(world, "propose") <= planned["propose"].prompts
    measured = {row["question_id"] for row in read_jsonl(next(world.work.glob("stages/propose-*/candidates.jsonl")))}
    searched = {row["question_id"] for row in read_jsonl(next(world.work.glob("stages/beam_search-*/beams.jsonl")))}
    assert len(searched) == 8 and len(measured) == 20 and searched < measured
    world.run(recipe)
    meta = json.loads(next(world.work.glob("stages/grpo-*/selector.json")).read_text())["meta"]
    assert set(meta["learned_from"]) == measured and result.stages["propose"] == "done"


def test_the_choice_reads_what_an_earlier_attempt_answered(tiny: Tiny, finished: Finished) -> None:
    world, _ = finished
    folder = _folder(world)
    before = {file.name: file.read_bytes() for file in folder.glob("*.jsonl")}
    assert {"zero_shot-0.jsonl", "random-1.jsonl", "text_knn-2.jsonl"} <= set(before)
    (folder / "provenance.json").unlink()
    (folder / "text_knn-2.jsonl").unlink()
    changed = [{**row, "accuracy": 1.0} for row in read_jsonl(folder / "random-1.jsonl")]
    (folder / "random-1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    again = world.run(tiny())
    assert again.stages["choose_baseline"] == "done" and again.stages["evaluate"] == "reused" and again.calls == 0
    assert (folder / "text_knn-2.jsonl").read_bytes() == before["text_knn-2.jsonl"]
    first = sum(row["accuracy"] for row in read_jsonl(folder / "random-2.jsonl")) / len(changed)
    assert _chosen(world)["accuracies"]["random"] == pytest.approx((1 + first) / 2), "read, and not asked again"


def _cost(world: Any, stage: str) -> int:
    return int(world.provenance(stage)["metadata"]["cost"]["prompts"])
