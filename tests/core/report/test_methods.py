from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leverplus_core import Recipe
from leverplus_core.errors import RegistryError
from leverplus_core.records import Prediction
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.report.comparison import compare_rows
from leverplus_core.report.leaderboard import leaderboard_rows, leaderboard_table
from leverplus_core.report.methods import merged_order, ordered_methods, pick_method, trained_methods

RUN = RunRecord("a1", "demo", "f", "demo_world", "qwen", 0)
EVERY = [
    "zero_shot", "random", "text_knn", "image_knn", "sft", "rce", "grpo", "online", "adaptive", "oracle",
]  # fmt: skip


def row(recipe: dict[str, object], source: str = "run") -> dict[str, object]:
    return {"id": "a1", "name": "demo", "recipe": recipe, "source": source}


def record(registry: Registry, run: RunRecord, methods: list[str]) -> None:
    registry.begin_run(run)
    for method in methods:
        predictions = [(i, Prediction(method, 1, f"q{i}", f"i{i}", (), "", "", 1.0)) for i in range(2)]
        registry.record_cell_predictions(run.id, method, 1, predictions, [2])


def test_baselines_come_first_then_policies_as_trained_then_adaptive_and_the_oracle_last() -> None:
    for recipe in (Recipe().values(), {}):
        assert ordered_methods(row(recipe), EVERY[::-1]) == EVERY
    listed = {"evaluation": {"baselines": [{"name": "bm25", "k1": 1.5}, {"name": "oracle"}, {"name": "random"}]}}
    assert ordered_methods(row(listed), ["oracle", "sft", "random", "bm25"]) == ["bm25", "random", "sft", "oracle"]


def test_an_unknown_method_stands_before_the_oracle_and_columns_keep_their_order() -> None:
    assert ordered_methods(row({}), ["oracle", "new", "rce", "other"]) == ["rce", "new", "other", "oracle"]
    table = row({"published": {"methods": ["Merged", "Baseline", "Best"]}}, "published")
    assert ordered_methods(table, ["Baseline", "Best", "Merged"]) == ["Merged", "Baseline", "Best"]


def test_orders_of_several_runs_become_one() -> None:
    first, second = ["random", "rce", "oracle"], ["zero_shot", "random", "bm25", "rce", "online", "oracle"]
    merged = ["zero_shot", "random", "bm25", "rce", "online", "oracle"]
    assert merged_order([first, second]) == merged
    assert merged_order([second, first]) == second and merged_order([]) == []


def test_what_was_trained_last_is_no_baseline_and_not_adaptive() -> None:
    recipe: dict[str, Any] = {
        "training": {"validation_fraction": 0.1, "sft": {}, "dpo": {}},
        "evaluation": {"baselines": [{"name": "mmr"}]},
    }
    assert trained_methods(row(recipe), ["oracle", "adaptive", "mmr", "dpo", "sft", "random"]) == ["sft", "dpo"]
    assert pick_method(row(recipe), ["mmr", "sft", "dpo", "adaptive"], None) == "dpo"
    assert pick_method(row(recipe), ["mmr", "sft"], "mmr") == "mmr"
    recipe["evaluation"]["ablations"] = ["blank_images"]
    ablated = ["sft", "dpo", "dpo+blank_images", "adaptive"]
    assert ordered_methods(row(recipe), ablated[::-1]) == ablated
    assert trained_methods(row(recipe), ablated) == ["sft", "dpo"], "an ablation is of a policy, and none itself"
    assert pick_method(row(recipe), ablated, None) == "dpo"
    assert pick_method(row(recipe), ablated, "dpo+blank_images") == "dpo+blank_images"
    with pytest.raises(RegistryError, match=r"no method 'stf' in run demo \(a1\).*Did you mean 'sft'"):
        pick_method(row(recipe), ["mmr", "sft"], "stf")
    with pytest.raises(RegistryError, match="trained nothing"):
        pick_method(row(recipe), ["mmr"], None)


def test_adaptive_and_online_do_not_follow_the_oracle(tmp_path: Path) -> None:
    """In the leaderboard, sorted or not, and in a comparison of runs."""
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    for run in (RUN, replace(RUN, id="b2", name="other")):
        record(registry, run, sorted(EVERY))
    rows = leaderboard_rows(registry, "a1")
    assert [r["method"] for r in rows] == EVERY
    assert list(dict.fromkeys(r["method"] for r in leaderboard_rows(registry, sort=["method"]))) == EVERY
    markdown = leaderboard_table(rows).markdown()
    places = [markdown.index(f"| {method} |") for method in EVERY]
    assert places == sorted(places)
    assert [r["method"] for r in compare_rows(registry, "a1", "b2")] == EVERY
