from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from leverplus_core import Recipe
from leverplus_core.errors import RecipeError, RegistryError
from leverplus_core.records import Prediction, PublishedCell, PublishedTable
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.report.headline import arm_rows, headline, headline_view
from leverplus_core.report.leaderboard import leaderboard_table
from leverplus_core.report.primary import Endpoint, best_baseline
from leverplus_core.report.unchanged import chose_start, unchanged_text

RECIPE: dict[str, Any] = {
    "dataset": {"name": "world"},
    "evaluation": {"baselines": [{"name": n} for n in ("zero_shot", "random", "text_knn", "nearest", "oracle")]},
}
RUN = RunRecord("a0", "demo", "f", "world", "m", 0, recipe=RECIPE, dataset_fingerprint="w")
CELLS: dict[tuple[str, int], Sequence[float]] = {
    ("zero_shot", 0): [0, 0, 1, 0],
    ("random", 1): [0, 0, 0, 0.6], ("random", 2): [0, 0, 0, 0.6],
    ("text_knn", 1): [1, 1, 1, 1], ("text_knn", 2): [1, 1, 1, 1],
    ("nearest", 1): [0, 1, 0, 0.6], ("nearest", 2): [0, 0, 1, 0.6],
    ("sft", 1): [1, 1, 0, 0.6], ("sft", 2): [1, 0, 1, 0.6],
    ("rce", 1): [1, 1, 0, 0.6], ("rce", 2): [1, 0, 1, 1],
    ("rce+blank_images", 1): [0, 0, 0, 0], ("rce+blank_images", 2): [0, 0, 0, 0],
    ("oracle", 1): [1, 1, 1, 1], ("oracle", 2): [1, 1, 1, 1],
}  # fmt: skip
CHOSEN = {"best": "nearest", "questions": 100, "shots": [1, 2], "source": "held_out",
          "accuracies": {"nearest": 0.5, "text_knn": 0.4, "random": 0.3}}  # fmt: skip


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(f"sqlite:///{tmp_path / 'r.db'}")


def record(
    registry: Registry, run: RunRecord, cells: Mapping[tuple[str, int], Sequence[float]], chosen: Any = CHOSEN
) -> str:
    registry.begin_run(run)
    for (method, shots), scores in cells.items():
        rows = [(i, Prediction(method, shots, f"q{i}", f"i{i}", (), "", "", float(s))) for i, s in enumerate(scores)]
        registry.record_cell_predictions(run.id, method, shots, rows, [2, 4])
    if chosen:
        registry.record_stage(run.id, "choose_baseline", "c", "done", 1.0, "", reused=False, metadata=chosen)
    registry.finish_run(run.id, "done")
    return run.id


def printed(view: object) -> str:
    out = io.StringIO()
    Console(file=out, width=80, color_system=None).print(view)
    return out.getvalue()


def test_the_endpoint_is_the_mean_over_shots_minus_the_baseline_chosen_on_train_questions(registry: Registry) -> None:
    found = headline(registry, [record(registry, RUN, CELLS)])
    assert (found.method, found.best and found.best.name, found.over, found.n) == ("rce", "nearest", [1, 2], 4)
    # Means over the two shots: rce 1 .5 .5 .8, nearest 0 .5 .5 .6; differences 1 0 0 .2, residuals .7 -.3 -.3 -.1.
    variance = (0.68 * 4 / 3 + 2 * 0.14**2 * 4 / 3) / 16
    center = 0.3 + (0.343 - 0.027 - 0.027 - 0.001) / 64 / (6 * variance)
    half = 3.182446305284263 * math.sqrt(variance)
    (row,) = found.primary
    assert (row["method"], row["baseline"], row["delta"]) == ("rce", "nearest", pytest.approx(0.3))
    assert (row["delta_low"], row["delta_high"]) == pytest.approx((center - half, min(1, center + half)))
    assert (row["corrected_low"], row["corrected_high"]) == (row["delta_low"], row["delta_high"])  # it is the only one
    assert row["mark"] == "no difference seen" and row["comparisons"] == 1
    # text_knn is far above on the evaluation questions: that is no reason to choose it.
    assert all(r["baseline"] == "nearest" for r in found.rows if r["method"] != "nearest")


def test_every_method_has_its_accuracy_difference_and_share_of_the_gap(registry: Registry) -> None:
    rows = {row["method"]: row for row in headline(registry, [record(registry, RUN, CELLS)]).rows}
    assert list(rows) == [
        "zero_shot", "random", "text_knn", "nearest", "sft", "rce", "rce+blank_images", "oracle"
    ]  # fmt: skip
    assert [row["role"] for row in rows.values()] == [
        *["baseline"] * 4, "trained", "trained", "ablation", "ceiling"
    ]  # fmt: skip
    # nearest has .4; zero_shot, asked without demonstrations, .25; the oracle 1.
    wanted = {"zero_shot": (0.25, -0.15), "random": (0.15, -0.25), "sft": (0.65, 0.25), "rce": (0.7, 0.3)}
    for method, (accuracy, delta) in wanted.items():
        assert (rows[method]["accuracy"], rows[method]["delta"]) == pytest.approx((accuracy, delta)), method
    assert rows["nearest"]["delta"] is None and rows["nearest"]["baseline"] is None
    # Of the gap from nearest to the oracle, 1 - .4, rce closes .3 and sft .25; a baseline closes none.
    assert rows["rce"]["share"] == pytest.approx(0.5) and rows["sft"]["share"] == pytest.approx(0.25 / 0.6)
    assert rows["rce"]["share_low"] <= 0.5 <= rows["rce"]["share_high"] and rows["text_knn"]["share"] is None
    assert [row["method"] for row in rows.values() if row["mark"]] == ["rce"]  # all others are exploratory
    assert [row["method"] for row in rows.values() if row["primary"]] == ["rce"]


def test_a_training_that_changed_nothing_is_said(registry: Registry) -> None:
    for seed, chosen in enumerate((0, 3, 0)):
        run = replace(RUN, id=f"a{seed}", name=f"n{seed}", seed=seed)
        record(registry, run, CELLS)
        for stage, epoch, start in (("sft", 7, None), ("rce", chosen, "sft")):
            meta = {"chosen_epoch": epoch, "epochs": 10, "start": start, "best_epoch": 3, "tied": 0}
            registry.record_stage(run.id, stage, stage, "done", 1.0, "", reused=False, metadata=meta)
    one = printed(headline_view(headline(registry, ["a0"])))
    assert "rce: epoch 0 of 10 was chosen, the same policy as sft\n" in one and "sft: epoch" not in one
    assert "epoch 0" not in printed(headline_view(headline(registry, ["a1"])))
    three = headline(registry, ["a0", "a1", "a2"])
    assert three.unchanged == [{"method": "rce", "start": "sft", "epochs": 10, "runs": 2, "of": 3}]
    assert "the same policy as sft (in 2 of 3 seeds)" in printed(headline_view(three))
    folds = {"folds": {"1": {"chosen_epoch": 0}, "2": {"chosen_epoch": 4}}, "epochs": 10, "start": None}
    assert not chose_start(folds) and chose_start({**folds, "folds": {"1": {"chosen_epoch": 0}}})
    assert unchanged_text({"method": "sft", "start": None, "epochs": 5, "runs": 1, "of": 1}) == (
        "sft: epoch 0 of 5 was chosen, a policy before any training"
    )


def test_further_comparisons_that_the_recipe_names_are_corrected_with_the_first(registry: Registry) -> None:
    primary = {"shots": [2], "n": 4, "method": "sft", "against": ["random", "rce", "grpo"]}
    recipe = {**RECIPE, "evaluation": {**RECIPE["evaluation"], "primary": primary}}
    found = headline(registry, [record(registry, replace(RUN, recipe=recipe), CELLS)])
    assert [(row["method"], row["baseline"]) for row in found.primary] == [
        ("sft", "nearest"), ("sft", "random"), ("sft", "rce")
    ]  # fmt: skip
    assert all(row["over"] == [2] and row["comparisons"] == 3 for row in found.primary)
    assert [row["delta"] for row in found.primary] == pytest.approx([0.25, 0.5, -0.1])
    assert found.missing == ["grpo"]
    assert "not evaluated, so not compared: grpo" in printed(headline_view(found))


def test_the_baseline_is_that_of_most_seeds_and_without_a_choice_one_stands_in(registry: Registry) -> None:
    ids = [
        record(registry, replace(RUN, id=f"a{i}", name=f"n{i}", seed=i), CELLS, {**CHOSEN, "best": best})
        for i, best in enumerate(("random", "nearest", "nearest"))
    ]
    found = best_baseline(registry, ids, ["random", "nearest"])
    assert found and (found.name, found.others, found.questions) == ("nearest", ("random",), 100)
    assert found.accuracies == pytest.approx({"nearest": 0.5, "text_knn": 0.4, "random": 0.3})
    bare = record(registry, replace(RUN, id="b", name="bare"), CELLS, None)
    for methods, name in ((["random", "text_knn"], "text_knn"), (["random"], "random")):
        stands_in = best_baseline(registry, [bare], methods)
        assert stands_in and (stands_in.name, stands_in.source) == (name, None)
    assert best_baseline(registry, [bare], ["rce"]) is None
    text = " ".join(printed(headline_view(headline(registry, [bare]))).split())
    assert "no baseline was chosen on train questions: text_knn stands in for the best" in text
    assert "rce - text_knn (best baseline)" not in text


def test_seeds_are_averaged_by_question_and_their_spread_is_in_the_interval(registry: Registry) -> None:
    ids = []
    for seed in range(3):
        cells = {key: [min(1.0, s + 0.1 * seed) for s in scores] if key[0] == "rce" else scores
                 for key, scores in CELLS.items()}  # fmt: skip
        ids.append(record(registry, replace(RUN, id=f"a{seed}", name=f"n{seed}", seed=seed), cells))
    found = headline(registry, ids, "demo")
    rce = next(row for row in found.rows if row["method"] == "rce")
    # Over shots and seeds, question by question: 1, (.5 + .55 + .6) / 3 = .55 twice, (.8 + .85 + .9) / 3 = .85.
    assert rce["accuracy"] == pytest.approx((1 + 0.55 + 0.55 + 0.85) / 4)
    assert found.seeds == 3 and found.primary[0]["seeds"] == 3
    # A baseline is the same for every seed: its runs are one, and its interval that of a single run.
    alone = next(row for row in headline(registry, ids[:1]).rows if row["method"] == "nearest")
    nearest = next(row for row in found.rows if row["method"] == "nearest")
    assert (nearest["ci_low"], nearest["ci_high"]) == (alone["ci_low"], alone["ci_high"])
    rows = {(row["method"], row["shots"]): row for row in arm_rows(registry, ids, "demo") if row["n"] == 4}
    assert rows["rce", 1]["accuracy"] == pytest.approx((1 + 1 + 0.1 + 0.7) / 4)
    text = printed(leaderboard_table(arm_rows(registry, ids, "demo")))
    assert "demo (a0, a1, a2)" in text and "…" not in text


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_view_fits_80_columns_and_says_what_the_number_of_seeds_allows(registry: Registry, seeds: int) -> None:
    ids = [record(registry, replace(RUN, id=f"a{i}", name=f"n{i}", seed=i), CELLS) for i in range(seeds)]
    text = printed(headline_view(headline(registry, ids, "demo")))
    assert all(len(line) <= 80 for line in text.splitlines()) and "…" not in text
    said = " ".join(text.split())
    assert "rce - nearest (best baseline)" in said
    assert "best baseline on 100 held-out train questions: nearest" in said
    assert ("one seed: it says nothing about the spread of training" in said) == (seeds == 1)
    assert ("fewer than 3" in said) == (seeds == 2)
    assert f"mean over 1, 2 shots, n = 4, {seeds} seed" in said


def test_a_run_that_trained_nothing_has_its_baselines(registry: Registry) -> None:
    cells = {key: scores for key, scores in CELLS.items() if key[0] in ("random", "nearest", "zero_shot")}
    found = headline(registry, [record(registry, RUN, cells)])
    assert (found.method, found.primary, len(found.rows)) == (None, [], 3)
    assert "nearest" in printed(headline_view(found))


def test_a_method_at_other_numbers_of_shots_has_no_row(registry: Registry) -> None:
    found = headline(registry, [record(registry, RUN, {**CELLS, ("fixed", 1): [1, 1, 1, 1]})])
    assert "fixed" not in {row["method"] for row in found.rows}


def test_what_has_no_headline_is_one_line(registry: Registry) -> None:
    registry.begin_run(RUN)
    with pytest.raises(RegistryError, match="evaluated nothing yet"):
        headline(registry, ["a0"])
    registry.record_published("paper", PublishedTable(("Ours",), (PublishedCell("Ours", 1, 100, "50.1", 3),)))
    with pytest.raises(RegistryError, match="published table"):
        headline(registry, ["paper"])


def test_an_endpoint_that_the_recipe_cannot_have_is_refused() -> None:
    assert Recipe.load("demo", ["evaluation.primary.against=[sft]"]).evaluation.primary.against == ("sft",)
    for override, message in (("shots=[9]", "primary.shots has 9"), ("n=77", "primary.n is 77")):
        with pytest.raises(RecipeError, match=message):
            Recipe.load("demo", [f"evaluation.primary.{override}"])
    assert Endpoint.of({"recipe": {}, "source": "run"}, ["random", "sft"]) == Endpoint(None, None, "sft", ())
