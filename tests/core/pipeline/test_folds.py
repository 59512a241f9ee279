"""Cross-fitting: no question, image or demonstration of a fold reaches the policy of that fold."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.errors import DataError, RecipeError
from leverplus_core.io import read_json
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.folds import WHOLE, Folds
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.pipeline.run import RunResult
from leverplus_core.pipeline.workspace import PROVENANCE
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.records import ScoredSequence
from leverplus_core.registry.registry import Registry
from leverplus_core.selector.checkpoint import read_meta

Tiny = Callable[..., Recipe]
FOLDS = ("fold-0", "fold-1", "fold-2")
CROSSED = (
    "evaluation.split=cross_fit", "evaluation.folds=3", "scoring.questions=null", "training.grpo.epochs=0",
    "evaluation.sizes=[36]", "dataset.per_image=2", "sampler.k=6",
)  # fmt: skip


@pytest.fixture(scope="module")
def _crossed(tiny: Tiny, tiny_catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, RunResult]:
    from tests.core.pipeline.conftest import World

    world = World(tmp_path_factory.mktemp("crossed"), tiny_catalog)
    return world, world.run(tiny(*CROSSED))


@pytest.fixture
def crossed(_crossed: tuple[Any, RunResult], tmp_path: Path) -> tuple[Any, RunResult]:
    """A copy of a world in which a cross-fitted run has finished, and what the run returned."""
    world, result = _crossed
    return world.copy(tmp_path / "crossed"), result


def test_questions_of_one_image_share_a_fold_and_folds_have_equal_numbers_of_images(
    tiny: Tiny, tiny_catalog: Catalog, tmp_path: Path
) -> None:
    context = RunContext(tiny(*CROSSED), tiny_catalog, tmp_path)
    questions = context.dataset.questions("train")
    assert len(questions) == 36 and not context.dataset.questions("validation")
    assert {d.id for d in context.dataset.demonstrations()} == {q.id for q in questions}
    folds = context.folds
    assert folds.names == FOLDS
    of_image = {(q.image.id, folds.of_question(q.id)) for q in questions}
    assert len(of_image) == 24  # 12 images of two train questions each, 12 of one validation question
    assert Counter(fold for _, fold in of_image) == dict.fromkeys(FOLDS, 8)
    assert all(folds.demonstrations[q.id] == folds.questions[q.id] for q in questions)
    assert folds == Folds.of(context.dataset, 3, 0) != Folds.of(context.dataset, 3, 1)


def test_more_folds_than_images_are_refused(tiny: Tiny, tiny_catalog: Catalog, tmp_path: Path) -> None:
    context = RunContext(tiny(*CROSSED, "evaluation.folds=25"), tiny_catalog, tmp_path)
    with pytest.raises(DataError, match=r"24 images cannot be dealt into 25 folds\. Set evaluation\.folds to 24"):
        _ = context.folds


def test_lessons_are_of_other_folds_and_show_other_folds_alone() -> None:
    folds = Folds(("fold-0", "fold-1"), {"a": "fold-0", "b": "fold-1", "c": "fold-1"}, {"x": "fold-0", "y": "fold-1"})
    rows = {
        "a": [ScoredSequence("a", ("y",), 0.5)],
        "b": [ScoredSequence("b", ("x",), 0.4), ScoredSequence("b", ("x", "y"), 0.3), ScoredSequence("b", ("y",), 0.2)],
        "c": [ScoredSequence("c", ("x",), 0.1)],
    }
    assert folds.lessons("fold-0", rows, "abc") == {"b": [rows["b"][2]]}  # c has nothing left
    assert folds.lessons("fold-0", rows, "ac") == {}
    assert folds.lessons("fold-1", rows, "abc") == {}  # the only sequence of a shows what fold 1 may not see
    assert Folds().lessons(WHOLE, rows, "") == rows


def test_nothing_of_a_fold_reaches_the_policy_of_that_fold(crossed: tuple[Any, RunResult], tiny: Tiny) -> None:
    world, _ = crossed
    pipeline = Pipeline(RunContext(tiny(*CROSSED), world.catalog, world.work))
    context, folds = pipeline.context, pipeline.context.folds
    image = {q.id: q.image.id for q in context.dataset.questions("train")}
    for stage in ("sft", "rce"):
        inputs = pipeline.inputs(pipeline.stage(stage))
        for fold in FOLDS:
            own = {q for q in image if folds.of_question(q) == fold}
            images = {image[q] for q in own}
            training = context.training(inputs, fold)
            seen = training.features
            pools = {q: set(pool) for q, pool in seen.pool_ids.items()}
            shown = set[str]().union(*pools.values())
            assert own and pools and not own & set(pools) and not own & set(seen.row) and not own & shown
            assert not images & {image[q] for q in {*pools, *shown}}
            assert len(seen.bank.rows) == len(image) - len(own)
            assert len(seen.questions.rows) == len(pools) <= len(image) - len(own)
            learned = set(read_meta(pipeline.folder(pipeline.stage(stage)).path / fold)["learned_from"])
            assert learned and not learned & own


def test_pools_hold_no_demonstration_of_their_fold_and_each_question_is_answered_once(
    crossed: tuple[Any, RunResult], tiny: Tiny
) -> None:
    world, result = crossed
    context = RunContext(tiny(*CROSSED), world.catalog, world.work)
    fold = context.folds.of_question
    [pools] = world.work.glob("stages/pool-*/pools.json")
    [(split, drawn)] = read_json(pools).items()
    assert split == "train" and len(drawn) == 36
    assert all(len(pool) == 6 and fold(q) not in map(fold, pool) for q, pool in drawn.items())
    with Registry(world.url) as registry:
        cells = {(cell["method"], cell["shots"]) for cell in registry.cells([result.run_id])}
        assert {method for method, _ in cells} == {"zero_shot", "random", "text_knn", "oracle", "sft", "rce"}
        for cell in cells:
            answers = [p for _, p in registry.cell_predictions(result.run_id, *cell)]
            assert sorted(p.question_id for p in answers) == sorted(drawn)
            assert all(fold(d) != fold(p.question_id) for p in answers for d in p.demonstrations)


def test_a_question_is_answered_as_the_policy_of_its_fold_chooses(crossed: tuple[Any, RunResult], tiny: Tiny) -> None:
    world, result = crossed
    pipeline = Pipeline(RunContext(tiny(*CROSSED), world.catalog, world.work))
    context, evaluate = pipeline.context, pipeline.inputs(pipeline.stage("evaluate"))
    features = context.selector_features(evaluate)
    with Registry(world.url) as registry:
        answered = {p.question_id: p.demonstrations for _, p in registry.cell_predictions(result.run_id, "rce", 2)}
    policies = {f: context.training(evaluate).init_policy(evaluate["@rce"] / f, []) for f in FOLDS}
    chosen: dict[str, dict[str, tuple[str, ...]]] = {f: {} for f in FOLDS}
    for f, policy in policies.items():
        for q in answered:
            best = policy.beam_search(features.batch([q]), 2, context.recipe.evaluation.num_beams)[0][0, 0].tolist()
            chosen[f][q] = tuple(features.pool_ids[q][p] for p in best)
    assert answered == {q: chosen[context.folds.of_question(q)][q] for q in answered}
    assert len({tuple(sorted(rows.items())) for rows in chosen.values()}) == 3  # so that another fold's would show


def test_a_run_that_was_killed_between_two_folds_trains_the_rest_alone(
    crossed: tuple[Any, RunResult], tiny: Tiny
) -> None:
    world, result = crossed
    before = world.results(result.run_id)
    [sft] = world.work.glob("stages/sft-*")
    metadata = read_json(sft / PROVENANCE)["metadata"]
    assert sorted(metadata["folds"]) == list(FOLDS)
    weights = {f: (sft / f / "selector.safetensors").read_bytes() for f in FOLDS}
    (sft / PROVENANCE).unlink()
    shutil.rmtree(sft / "fold-2")
    kept = (sft / "fold-0" / "selector.safetensors").stat().st_mtime_ns
    again = world.run(tiny(*CROSSED))
    assert again.stages["sft"] == "done" and again.stages["rce"] == "reused" and again.calls == 0
    assert (sft / "fold-0" / "selector.safetensors").stat().st_mtime_ns == kept
    assert {f: (sft / f / "selector.safetensors").read_bytes() for f in FOLDS} == weights
    assert read_json(sft / PROVENANCE)["metadata"]["folds"] == metadata["folds"]
    assert world.results(result.run_id) == before
    redone = world.run(tiny(*CROSSED), redo=("sft",))
    assert redone.stages["sft"] == "done" and world.results(result.run_id) == before
    assert (sft / "fold-0" / "selector.safetensors").stat().st_mtime_ns != kept


def test_the_curve_of_each_fold_is_recorded(crossed: tuple[Any, RunResult]) -> None:
    world, result = crossed
    with Registry(world.url) as registry:
        curves = [row for row in registry.curve_rows(result.run_id) if row["stage"] == "rce"]
    assert {row["metric"].partition(" ")[0] for row in curves} == set(FOLDS)


def test_what_is_not_cross_fitted_is_refused_in_one_line(tiny: Tiny, tiny_catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"on-policy rounds are not cross-fitted\. Set training\.online\.rounds=0"):
        RunContext(tiny(*CROSSED, "training.online.rounds=1"), tiny_catalog, tmp_path)
    with pytest.raises(RecipeError, match=r"imported data are not cross-fitted"):
        RunContext(tiny(*CROSSED, "imported.folder=/nowhere"), tiny_catalog, tmp_path)
