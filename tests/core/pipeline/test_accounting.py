"""What a result cost, what was copied, and which runs asked the evaluation questions, on the tiny world."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from leverplus_core.errors import RecipeError
from leverplus_core.io import read_json, read_jsonl
from leverplus_core.pipeline.audit import who_asked
from leverplus_core.pipeline.run import RunResult
from leverplus_core.pipeline.workspace import PROVENANCE
from leverplus_core.progress import Silent
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry
from leverplus_core.scoring.meter import ASKED, read_keys

Tiny = Callable[..., Recipe]
Finished = tuple[Any, RunResult]
SINGLE = "scoring.candidates={shots: [1], num_beams: 2, samples: {}, retrieval: 1, random: 0}"


class Stopped(Exception):
    pass


class StopAt(Silent):
    """Raises when a task starts whose label begins like this."""

    def __init__(self, label: str) -> None:
        self.label = label

    def task(self, label: str, total: int) -> Any:
        if label.startswith(self.label):
            raise Stopped
        return super().task(label, total)


def costs(world: Any) -> dict[str, dict[str, int]]:
    """Stage -> its cost but for the seconds."""
    found = {}
    for folder in world.work.glob("stages/*"):
        cost = dict(read_json(folder / PROVENANCE)["metadata"]["cost"])
        assert cost.pop("seconds") > 0
        found[folder.name.rpartition("-")[0]] = cost
    return found


# --- prompts ---


def test_the_prompts_of_each_stage_and_method_are_those_that_are_counted_by_hand(tiny: Tiny, world: Any) -> None:
    # The judge of epochs asks nothing here, and the reward reads the probability of the true answer.
    result = world.run(tiny(SINGLE, "training.judge.by=candidates", reward="hard_plus_gt_prob"))
    cost = costs(world)
    # 20 questions: alone, with each of 5 demonstrations, and the best two of these behind each of the 4 others.
    searched = 20 * (1 + 5 + 2 * 4)
    assert cost["beam_search"] == {"prompts": searched, "asked": searched, "asked_in_all": searched}
    [folder] = world.work.glob("stages/propose-*")
    candidates = len(read_jsonl(folder / "candidates.jsonl"))
    # A log-probability and an answer each, and the question alone. The search has asked all the log-probabilities.
    assert cost["propose"]["asked"] == 2 * candidates + 20
    assert cost["propose"]["prompts"] == candidates and cost["propose"]["asked_in_all"] == searched + candidates
    assert cost["sft"] == {"prompts": 0, "asked": 0, "asked_in_all": searched}
    assert cost["rce"] == cost["grpo"] == {"prompts": 0, "asked": 0, "asked_in_all": searched + candidates}
    # 10 evaluation questions: the oracle's search puts the best two behind the others of the best three, and answers
    # the question alone and the two that it keeps of each length.
    oracle = 10 * ((1 + 5 + 2 * 2) + (1 + 2 + 2))
    with Registry(world.url) as registry:
        assert registry.method_prompts(result.run_id) == {
            "zero_shot": 0, "random": 0, "text_knn": 0, "oracle": oracle,
            "sft": searched, "rce": searched + candidates, "grpo": searched + candidates,
        }  # fmt: skip
        cells = registry.cells([result.run_id])
        assert {(c["method"], c["prompts"]) for c in cells} == set(registry.method_prompts(result.run_id).items())


def test_what_the_judge_of_epochs_asks_is_a_cost_of_the_training(tiny: Tiny, finished: Finished) -> None:
    world, _ = finished
    cost, asked = costs(world), {}
    for stage in ("beam_search", "sft", "propose", "rce", "grpo"):
        [folder] = world.work.glob(f"stages/{stage}-*")
        asked[stage] = set() if (keys := read_keys(folder / ASKED)) is None else set(keys.tolist())
        assert cost[stage]["asked"] == len(asked[stage]) > 0
    assert cost["sft"]["asked_in_all"] == len(asked["beam_search"] | asked["sft"])
    # Answers that several stages need are counted once.
    assert cost["grpo"]["asked_in_all"] == len(set().union(*asked.values())) < sum(map(len, asked.values()))


def test_what_is_asked_does_not_depend_on_what_the_cache_knows(tiny: Tiny, finished: Finished) -> None:
    world, whole = finished
    cold = costs(world)
    assert sum(cost["prompts"] for cost in cold.values()) == whole.calls > 0
    with Registry(world.url) as registry:
        before = registry.method_prompts(whole.run_id)
        again = world.run(tiny(), redo=("encode",))
        assert again.calls == 0 and set(again.stages.values()) == {"done", "off"}
        warm = costs(world)
        assert warm == {stage: {**cost, "prompts": 0} for stage, cost in cold.items()}
        assert registry.method_prompts(whole.run_id) == before
        # A finished evaluation has them, too.
    with Registry(f"sqlite:///{world.folder}/other.db") as other:
        world.run(tiny(), other)
        assert other.method_prompts(whole.run_id) == before and before["rce"] == cold["rce"]["asked_in_all"]


def test_a_redone_evaluation_forgets_nothing_that_its_methods_cost(tiny: Tiny, finished: Finished) -> None:
    world, whole = finished
    with Registry(world.url) as registry:
        before = registry.method_prompts(whole.run_id)
        world.run(tiny(), redo=("evaluate",))
        assert registry.method_prompts(whole.run_id) == before


def test_nothing_is_said_of_the_prompts_behind_imported_candidates(tiny: Tiny, finished: Finished) -> None:
    world, _ = finished
    [folder] = world.work.glob("stages/propose-*")
    recipe = tiny(f"imported.folder={folder / 'candidates.jsonl'}")
    with Registry(f"sqlite:///{world.folder}/other.db") as other:
        result = world.run(recipe, other)
        assert result.stages["propose"] == "imported" and result.stages["evaluate"] == "done"
        known = other.method_prompts(result.run_id)
        prompts = {cell["method"]: cell["prompts"] for cell in other.cells([result.run_id])}
    assert set(known) == {"zero_shot", "random", "text_knn", "oracle"}
    assert prompts == {**known, "rce": None, "grpo": None}
    with pytest.raises(RecipeError, match=r"stage 'propose' is imported from .*nothing to compute again"):
        world.run(recipe, redo=("propose",))


# --- copies ---


def test_an_answer_is_copied_where_a_demonstration_that_was_shown_has_it(tiny: Tiny, finished: Finished) -> None:
    world, whole = finished
    answers = {d.id: d.answer for d in world.catalog.build("dataset", "tiny", {}).demonstrations()}
    with Registry(world.url) as registry:
        seen = set()
        for cell in registry.cells([whole.run_id]):
            found = [p for _, p in registry.cell_predictions(whole.run_id, cell["method"], cell["shots"], cell["n"])]
            copied = [p.prediction in [answers[d] for d in p.demonstrations] for p in found]
            assert [p.copied for p in found] == copied
            assert cell["copied"] == sum(copied) / len(copied)
            seen |= set(copied)
        assert seen == {True, False}
        assert {c["copied"] for c in registry.cells([whole.run_id], shots=0)} == {0.0}


# --- who asked ---


def test_evaluations_are_added_by_each_that_asks_and_never_removed(tiny: Tiny, world: Any) -> None:
    first = world.run(tiny())
    registry = Registry(world.url)

    def listed() -> list[tuple[str, str, int]]:
        return [(e["run_id"], e["split"], e["n"]) for e in registry.evaluations()]

    asked = (first.run_id, "validation", 10)
    assert listed() == [asked]
    world.run(tiny())
    world.run(tiny("name=renamed"))  # the same run
    assert listed() == [asked]
    world.run(tiny(), redo=("evaluate",))
    assert listed() == [asked] * 2
    with pytest.raises(Stopped):
        world.run(tiny("seed=1"), progress=StopAt("evaluate sft"))
    second = world.run(tiny("seed=1"))
    assert listed() == [asked] * 2 + [(second.run_id, "validation", 10)] * 2
    third = world.run(tiny("evaluation.sizes=[4]"))
    other = world.run(tiny(dataset="tiny:validation=11"))
    rows = registry.evaluations()
    assert [row["run_id"] for row in rows[4:]] == [third.run_id, other.run_id] and rows[4]["n"] == 4
    assert all(a["asked_at"] < b["asked_at"] for a, b in pairwise(rows))
    data = rows[0]["dataset_fingerprint"]
    assert len(registry.evaluations(data)) == 5 and registry.runs_that_asked(data, "validation") == 3
    assert registry.runs_that_asked(data, "held_out") == 0
    [sample] = {cell["sample"] for cell in registry.cells([first.run_id], n=10)}
    assert [row["run_id"] for row in registry.evaluations(sample=sample)] == [first.run_id] * 2 + [second.run_id] * 2
    [evaluate] = [row for row in registry.stages(first.run_id) if row["name"] == "evaluate"]
    assert rows[0]["fingerprint"] == evaluate["fingerprint"]
    assert rows[0]["methods"] == ["zero_shot", "random", "text_knn", "oracle", "sft", "rce", "grpo"]
    told = who_asked(registry, third.run_id)
    assert (told["split"], told["runs"], len(told["evaluations"])) == ("validation", 3, 5)
    assert registry.sql("SELECT runs, evaluations, largest_n FROM questions_asked ORDER BY runs")[1] == [
        (1, 1, 10), (3, 5, 10),
    ]  # fmt: skip


def test_with_cross_fitting_the_choice_of_the_baseline_asks_the_evaluation_questions(tiny: Tiny, world: Any) -> None:
    recipe = tiny("evaluation={split: cross_fit, folds: 3, shots: [1], sizes: [36], baselines: [random, text_knn]}")
    world.run(recipe, until="choose_baseline")
    [first] = Registry(world.url).evaluations()
    assert (first["split"], first["n"], first["methods"]) == ("cross_fit", 36, ["random", "text_knn"])
    world.run(recipe)
    rows = Registry(world.url).evaluations()
    assert rows[0] == first and [row["split"] for row in rows] == ["cross_fit"] * 2
    assert rows[1]["sample"] == first["sample"] and "sft" in rows[1]["methods"]
    assert Registry(world.url).runs_that_asked(first["dataset_fingerprint"], "cross_fit") == 1


def test_an_evaluation_that_was_stopped_before_its_first_answer_was_complete_is_in_the_list(
    tiny: Tiny, world: Any
) -> None:
    with pytest.raises(Stopped):
        world.run(tiny(), progress=StopAt("evaluate zero_shot"))
    [row] = Registry(world.url).evaluations()
    assert row["n"] == 10 and not Registry(world.url).cells()


def test_a_registry_that_is_filled_from_finished_stages_lists_the_run_once(tiny: Tiny, finished: Finished) -> None:
    world, whole = finished
    with Registry(f"sqlite:///{world.folder}/other.db") as other:
        for _ in range(2):
            world.run(tiny(), other)
        [row] = other.evaluations()
    with Registry(world.url) as registry:
        [asked] = registry.evaluations()
    assert {**row, "asked_at": ""} == {**asked, "asked_at": ""} and row["run_id"] == whole.run_id


def test_a_run_without_methods_is_no_evaluation(tiny: Tiny, world: Any) -> None:
    off = [f"training.{name}.epochs=0" for name in ("sft", "rce", "grpo", "mrt")]
    result = world.run(tiny(*off, "evaluation.baselines=[]"))
    assert result.calls == 0
    with Registry(world.url) as registry:
        assert registry.evaluations() == []
