"""One list of stages decides what runs and what is reused; the same command goes on after whatever stopped it."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from leverplus_core.errors import CheckpointError, DataError, PluginError, RecipeError
from leverplus_core.io import read_json, write_json
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.pipeline.plan import plan
from leverplus_core.pipeline.run import COST, RunResult
from leverplus_core.pipeline.stages import STAGE_NAMES
from leverplus_core.pipeline.workspace import PROVENANCE
from leverplus_core.plugins.manager import Catalog
from leverplus_core.progress import Silent
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry
from leverplus_core.report.headline import headline, remarks

Tiny = Callable[..., Recipe]
Finished = tuple[Any, RunResult]
WHOLE = (
    "scoring.mining={min_positives: 99, rounds: 1, candidates_per_round: 2}",
    "training.online={rounds: 1, candidates: {shots: [1], num_beams: 1, samples: {}, random: 1}}",
    "training.mrt={epochs: 1, start: sft}",
)
"""With these settings no stage is off."""


# --- one list of stages ---


def test_order_fingerprints_plan_and_registry_follow_from_one_list(tiny: Tiny, world: Any) -> None:
    recipe = tiny(*WHOLE)
    pipeline = Pipeline(RunContext(recipe, world.catalog, world.work))
    assert tuple(stage.name for stage in pipeline.stages) == STAGE_NAMES
    fingerprints = pipeline.fingerprints
    assert tuple(fingerprints) == STAGE_NAMES and len(set(fingerprints.values())) == len(STAGE_NAMES)
    assert tuple(stage.stage for stage in plan(pipeline.context).stages) == STAGE_NAMES
    assert not world.work.exists()
    result = world.run(recipe)
    assert result.stages == dict.fromkeys(STAGE_NAMES, "done") and tuple(result.stages) == STAGE_NAMES
    rows = Registry(world.url).stages(result.run_id)
    assert {row["name"]: row["fingerprint"] for row in rows} == fingerprints
    assert {Path(row["path"]).name for row in rows} == {f"{n}-{f}" for n, f in fingerprints.items()}
    assert {path.name for path in (world.work / "stages").iterdir()} == {Path(row["path"]).name for row in rows}


def test_a_stage_without_use_has_no_fingerprint_no_folder_and_no_row(tiny: Tiny, world: Any) -> None:
    recipe = tiny("training.rce.epochs=0", "training.grpo.epochs=0")
    off = {"propose", "mine", "balance", "rce", "grpo", "mrt", "online"}  # nothing would read the candidates
    pipeline = Pipeline(RunContext(recipe, world.catalog, world.work))
    on = [name for name in STAGE_NAMES if name not in off]
    assert list(pipeline.fingerprints) == [stage.stage for stage in plan(pipeline.context).stages] == on
    result = world.run(recipe)
    assert {name for name, state in result.stages.items() if state == "off"} == off
    assert sorted(row["name"] for row in Registry(world.url).stages(result.run_id)) == sorted(on)


@pytest.mark.parametrize("until", STAGE_NAMES)
def test_a_run_ends_after_the_stage_that_it_is_told(tiny: Tiny, finished: Finished, until: str) -> None:
    world, whole = finished
    result = world.run(tiny(), f"sqlite:///{world.folder}/until.db", until=until)
    assert tuple(result.stages) == STAGE_NAMES[: STAGE_NAMES.index(until) + 1] and result.calls == 0
    [row] = Registry(f"sqlite:///{world.folder}/until.db").runs()
    assert row["status"] == ("done" if until == "evaluate" else "partial") and row["id"] == whole.run_id


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_before_anything_is_written(tiny: Tiny, world: Any) -> None:
    with pytest.raises(CheckpointError, match="no device 'cuda' on this machine"):
        world.run(tiny("training.device=cuda"))
    assert not list(world.folder.iterdir())


def test_a_stage_that_is_not_there_is_told_before_anything_runs(tiny: Tiny, world: Any) -> None:
    for wrong in ({"until": "rcee"}, {"redo": ("rcee",)}):
        with pytest.raises(RecipeError, match=r"no stage named 'rcee'.*rce"):
            world.run(tiny(), **wrong)
    assert not list(world.folder.iterdir())


READ = {
    "encode": set(),
    "pool": {"encode"},
    "beam_search": {"pool"},
    "sft": {"encode", "pool", "beam_search"},
    "propose": {"encode", "pool", "beam_search", "sft"},
    "mine": {"encode", "pool", "propose"},
    "balance": {"mine"},
    "rce": {"encode", "pool", "mine", "balance", "sft"},
    "grpo": {"encode", "pool", "mine", "balance", "rce"},
    "mrt": {"encode", "pool", "mine", "balance", "sft"},  # its `start`
    "online": {"encode", "pool", "mine", "balance", "mrt"},
    "choose_baseline": {"encode", "pool"},
    "evaluate": {"encode", "pool", "sft", "rce", "grpo", "mrt", "online"},
}


def test_provenance_names_the_stages_that_were_read_and_no_others(tiny: Tiny, world: Any) -> None:
    recipe = tiny(*WHOLE)
    world.run(recipe)
    fingerprints = Pipeline(RunContext(recipe, world.catalog, world.work)).fingerprints
    for stage, read in READ.items():
        assert world.provenance(stage)["inputs"] == {name: fingerprints[name] for name in read}, stage


def test_where_nothing_is_left_to_learn_from_all_else_is_evaluated(tiny: Tiny, world: Any) -> None:
    dropped = tiny("training.grpo.start=rce", balancer="keep_all:min_pos=99")
    result = world.run(dropped)
    assert {name for name, state in result.stages.items() if state == "not trained"} == {"rce", "grpo"}
    assert result.untrained.keys() == {"rce", "grpo"}
    assert "the balancer dropped all 20 questions (" in result.untrained["rce"]
    assert re.search(r"the model's most frequent are '(red|blue)' \(\d+\)", result.untrained["rce"])
    assert re.search(r"true answers are such as '(red|blue)'", result.untrained["rce"])
    with Registry(world.url) as store:
        assert {cell["method"] for cell in store.cells([result.run_id])} == {
            "zero_shot", "random", "text_knn", "oracle", "sft"
        }  # fmt: skip
        assert store.runs()[0]["status"] == "done"
        found = headline(store, [result.run_id])
        assert found.method == "sft" and [row["method"] for row in found.untrained] == ["rce", "grpo"]
        assert remarks(found)[-4].startswith("not trained: rce, grpo: the balancer dropped all 20 questions")
    again = world.run(dropped)
    assert again.calls == 0 and again.untrained == result.untrained and again.stages["evaluate"] == "reused"
    without = world.run(tiny("training.rce.epochs=0", "training.grpo.epochs=0"))
    assert without.calls == 0 and without.stages["evaluate"] == "reused", "it is the evaluation without them"


def test_pools_that_need_no_features_do_not_read_them(tiny: Tiny, world: Any) -> None:
    recipe = tiny(sampler="random:k=5")
    world.run(recipe, until="pool")
    assert world.provenance("pool")["inputs"] == {}
    other = tiny("encoder.hidden_states=0", sampler="random:k=5")
    pools = {Pipeline(RunContext(r, world.catalog, world.work)).fingerprints["pool"] for r in (recipe, other)}
    assert len(pools) == 1


LEARNED = {"sft", "rce", "grpo", "evaluate"}
MEASURED = {"beam_search", "sft", "propose", "balance", "rce", "grpo", "choose_baseline", "evaluate"}


@pytest.mark.parametrize(
    ("override", "parts", "changed"),
    [
        ("dataset.train=23", {}, {"encode", "pool"} | MEASURED),
        ("sampler.k=4", {}, {"pool"} | MEASURED),
        ("data_seed=1", {}, {"pool"} | MEASURED),
        ("prompt.system=Say a color.", {}, MEASURED),
        ("prompt.stop=[x]", {}, MEASURED),
        ("scoring.reference=all", {}, MEASURED),
        ("scoring.end_mark=true", {}, MEASURED),
        ("threads=1", {"reward": "separated_gt_prob"}, {"propose", "balance", "rce", "grpo", "evaluate"}),
        ("scoring.beam_search.num_beams=3", {}, MEASURED - {"choose_baseline"}),
        ("scoring.candidates.questions=22", {}, MEASURED - {"beam_search", "sft"}),
        ("selector.width=8", {}, {"sft", "propose", "balance", "rce", "grpo", "evaluate"}),
        ("decoding.max_new_tokens=3", {}, MEASURED - {"beam_search"}),  # answers choose the epoch of SFT
        ("training.judge.shots=[2]", {}, MEASURED - {"beam_search", "choose_baseline"}),
        ("training.grpo.start=sft", {}, {"grpo", "evaluate"}),
        ("training.grpo.within=question", {}, {"grpo", "evaluate"}),
        ("scoring.candidates.random=2", {}, {"propose", "balance", "rce", "grpo", "evaluate"}),
        ("balancer.min_pos=1", {}, {"balance", "rce", "grpo", "evaluate"}),
        ("threads=1", {"reward": "mixed"}, {"rce", "grpo", "evaluate"}),
        ("training.grpo.beta=0.2", {}, {"grpo", "evaluate"}),
        ("evaluation.shots=[1]", {}, MEASURED - {"beam_search"}),  # those of the judge, too
        ("evaluation.baselines=[random]", {}, {"choose_baseline", "evaluate"}),
        ("evaluation.baselines=[zero_shot, random, text_knn]", {}, {"evaluate"}),  # the oracle is never chosen
        ("evaluation.baseline_questions=3", {}, {"choose_baseline"}),
        ("evaluation.split=held_out", {}, {"choose_baseline", "evaluate"}),
        ("seed=1", {}, {"sft", "propose", "balance", "rce", "grpo", "evaluate"}),
        ("name=other", {}, set()),
        ("note=other", {}, set()),
        ("threads=2", {}, set()),
    ],
)
def test_a_setting_changes_the_fingerprints_of_what_depends_on_it(
    tiny: Tiny, tiny_catalog: Catalog, override: str, parts: Mapping[str, str], changed: set[str]
) -> None:
    before, after = (Pipeline(RunContext(r, tiny_catalog)).fingerprints for r in (tiny(), tiny(override, **parts)))
    assert {name for name in before if before[name] != after[name]} == changed


# --- reuse ---


def test_a_reused_evaluation_fills_another_registry_without_a_model_call(tiny: Tiny, finished: Finished) -> None:
    world, whole = finished
    model = sys.modules["tiny_parts"].TinyModel
    answered, other = model.answered, f"sqlite:///{world.folder}/other.db"
    (world.work / "responses.sqlite").unlink()
    again = world.run(tiny("name=renamed"), other)
    assert again.run_id == whole.run_id and again.calls == 0 and model.answered == answered
    assert set(again.stages.values()) == {"reused", "off"}
    found = world.results(again.run_id, other)
    assert found == world.results(whole.run_id) and all(found.values())
    methods = {"random", "text_knn", "oracle", "sft", "rce", "grpo"}
    grid = {(method, shots, n) for method in methods for shots in (1, 2) for n in (5, 10)}
    assert {row[:3] for row in found["cells"]} == grid | {("zero_shot", 0, 5), ("zero_shot", 0, 10)}


@pytest.mark.parametrize(
    ("redo", "computed"),
    [
        (("pool",), {"pool"} | MEASURED),
        (("balance",), {"balance", "rce", "grpo", "evaluate"}),
        (("sft", "grpo"), {"sft", "propose", "balance", "rce", "grpo", "evaluate"}),
        (("evaluate",), {"evaluate"}),
        (("mine",), set()),
    ],
)
def test_redo_computes_the_stage_and_all_that_reads_it_and_nothing_else(
    tiny: Tiny, finished: Finished, redo: tuple[str, ...], computed: set[str]
) -> None:
    world, whole = finished
    before = world.results(whole.run_id)
    again = world.run(tiny(), redo=redo)
    assert {name for name, state in again.stages.items() if state == "done"} == computed
    assert set(again.stages.values()) <= {"done", "reused", "off"}
    assert again.calls == 0 and world.results(whole.run_id) == before  # what the model said is known


class Stopped(Exception):
    pass


class StopAt(Silent):
    """Raises when a task starts whose label begins like this; keeps what is said."""

    def __init__(self, label: str = "no such label", error: BaseException | None = None) -> None:
        self.label, self.error, self.said = label, error or Stopped(), list[str]()

    def task(self, label: str, total: int) -> Any:
        if label.startswith(self.label):
            raise self.error
        return super().task(label, total)

    def say(self, message: str) -> None:
        self.said.append(message)


def test_a_redo_that_was_stopped_leaves_nothing_that_was_read_from_the_old_result(
    tiny: Tiny, finished: Finished
) -> None:
    world, _ = finished
    with pytest.raises(Stopped):
        world.run(tiny(), redo=("balance",), progress=StopAt("rce"))
    again = world.run(tiny())
    assert {name for name, state in again.stages.items() if state == "done"} == {"rce", "grpo", "evaluate"}


def test_a_stage_that_other_core_code_computed_says_so_when_it_is_reused(tiny: Tiny, finished: Finished) -> None:
    world, _ = finished
    quiet = StopAt()
    world.run(tiny(), progress=quiet)
    assert not quiet.said
    [folder] = world.work.glob("stages/beam_search-*")
    write_json(folder / PROVENANCE, {**read_json(folder / PROVENANCE), "core_code": "of another version"})
    told = StopAt()
    assert world.run(tiny(), progress=told).stages["beam_search"] == "reused"
    [line] = told.said
    assert line.startswith("beam_search: reused from 20") and "other code" in line and "--redo beam_search" in line
    assert world.run(tiny(), redo=("beam_search",), progress=told).stages["beam_search"] == "done"
    assert not [line for line in told.said[1:] if "reused" in line]


class Labels(Silent):
    """Keeps the labels of all tasks, and of each how many steps were done at first and in all."""

    def __init__(self) -> None:
        self.labels = list[tuple[str, int]]()

    def task(self, label: str, total: int) -> Any:
        self.labels.append((label, total))
        return super().task(label, total)


def test_a_bar_says_which_of_how_many_stages_runs_and_one_stands_while_data_is_read(
    tiny: Tiny, finished: Finished
) -> None:
    world, whole = finished
    shown = Labels()
    world.run(tiny(), progress=shown)
    stages = [name for name, state in whole.stages.items() if state != "off"]
    n = len(stages)
    assert shown.labels == [
        ("reading the data and checking the recipe", 0),
        *((f"stage {i} of {n}: {stage}", n) for i, stage in enumerate(stages, 1)),
    ]


def test_a_training_records_how_many_epochs_it_had_and_whose_policy_it_began_with(finished: Finished) -> None:
    world, whole = finished
    found = {row["name"]: row["metadata"] for row in Registry(world.url).stages(whole.run_id)}
    told = {name: (found[name]["epochs"], found[name]["start"]) for name in ("sft", "rce", "grpo")}
    assert told == {"sft": (1, None), "rce": (2, "sft"), "grpo": (1, "rce")}


# --- whatever stops a run ---


@pytest.mark.parametrize(("error", "status"), [(Stopped(), "failed"), (KeyboardInterrupt(), "stopped")])
def test_a_run_stopped_in_its_evaluation_goes_on_and_costs_the_sum_of_its_attempts(
    tiny: Tiny, finished: Finished, world: Any, error: BaseException, status: str
) -> None:
    undisturbed, whole = finished
    labels = ("evaluate text_knn, 2 shots", "evaluate sft")
    calls = []
    for label in labels:
        before = sys.modules["tiny_parts"].TinyModel.answered
        with pytest.raises(type(error)):
            world.run(tiny(), progress=StopAt(label, error))
        calls.append(sys.modules["tiny_parts"].TinyModel.answered - before)
        assert [row["status"] for row in Registry(world.url).runs()] == [status]
        [folder] = world.work.glob("stages/evaluate-*")
        assert not (folder / PROVENANCE).exists() and (folder / COST).exists()
    result = world.run(tiny())
    assert result.stages["evaluate"] == "done" and min(*calls, result.calls) > 0
    assert sum(calls) + result.calls == whole.calls
    assert world.results(whole.run_id) == undisturbed.results(whole.run_id)
    cost, expected = (w.provenance("evaluate")["metadata"]["cost"] for w in (world, undisturbed))
    assert cost["prompts"] == expected["prompts"] > result.calls and cost["seconds"] > 0
    assert not (folder / COST).exists() and Registry(world.url).runs()[0]["status"] == "done"


class StopAtTask(Silent):
    """Raises when the n-th task of the stages starts, whatever it is; the bars of the whole run are none."""

    def __init__(self, n: int) -> None:
        self.left = n

    def task(self, label: str, total: int) -> Any:
        self.left -= not label.startswith(("stage ", "reading "))
        if self.left < 0:
            raise Stopped(label)
        return super().task(label, total)


def test_a_run_stopped_again_and_again_ends_with_the_same_result(tiny: Tiny, finished: Finished, world: Any) -> None:
    undisturbed, whole = finished
    stops: list[str] = []
    for n in itertools.cycle((1, 2, 3, 2, 1, 4)):
        try:
            result = world.run(tiny(), progress=StopAtTask(n))
            break
        except Stopped as stop:
            stops.append(str(stop))
    assert len(set(stops)) >= 10 and result.stages["evaluate"] == "done"
    assert world.results(whole.run_id) == undisturbed.results(whole.run_id)


@pytest.mark.parametrize("answers", [40, -12], ids=["in the search", "in the evaluation"])
def test_a_run_killed_by_the_system_ends_with_the_same_result(
    tiny: Tiny, finished: Finished, world: Any, answers: int
) -> None:
    undisturbed, whole = finished
    program = (
        "import json, sys; from pathlib import Path; from leverplus_core import Catalog, Recipe, run\n"
        "recipe, url, work, plugin = sys.argv[1:]\n"
        "run(Recipe.of(json.loads(recipe)), url, work, catalog=Catalog.load([Path(plugin)], disabled=''))"
    )
    at = answers % whole.calls
    command = [sys.executable, "-c", program, tiny().model_dump_json(), world.url, str(world.work)]
    command.append(str(Path(__file__).parent / "tiny_parts.py"))
    killed = subprocess.run(command, env={**os.environ, "TINY_KILL_AT": str(at)}, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    result = world.run(tiny())
    assert 0 < result.calls <= whole.calls - at + 200, "what was answered before the kill is not asked again"
    assert world.results(whole.run_id) == undisturbed.results(whole.run_id)
    for stage in result.stages:
        if result.stages[stage] != "off":
            cost, expected = (w.provenance(stage)["metadata"]["cost"] for w in (world, undisturbed))
            assert {**cost, "seconds": 0} == {**expected, "seconds": 0}, stage
    prompts = [Registry(w.url).method_prompts(whole.run_id) for w in (world, undisturbed)]
    assert prompts[0] == prompts[1]


# --- composing ---


@pytest.mark.parametrize(
    "override",
    [
        "dataset={name: table, train: absent.jsonl, validation: absent.jsonl}",
        "dataset={name: vqa_json, release: okvqa, folder: absent, images: absent}",
        "imported.folder=absent",
    ],
)
def test_composing_writes_nothing_and_reads_no_data(
    tiny: Tiny, tiny_catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = Pipeline(RunContext(tiny(override), tiny_catalog, tmp_path / "work"))
    assert [stage.name for stage in pipeline.stages] == list(STAGE_NAMES) and pipeline.context.provenance()
    with pytest.raises(DataError, match="absent"):
        _ = pipeline.fingerprints
    assert not list(tmp_path.iterdir())


def test_data_that_is_absent_is_told_before_anything_is_written(
    tiny: Tiny, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.folder)
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        world.run(tiny("dataset={name: table, train: absent.jsonl, validation: absent.jsonl}"))
    assert not list(world.folder.iterdir())


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["evaluation.shots=[1, 9]"], "evaluation.shots in --set .*: 9 shots cannot be filled from a pool of 5"),
        (["scoring.beam_search.shots=6"], "scoring.beam_search.shots in --set .*: 6 shots"),
        (["scoring.candidates.shots=[0, 7]"], "scoring.candidates.shots in --set .*: 7 shots"),
        (["scoring.mining={min_positives: 1, shots: [6]}"], "scoring.mining.shots in --set .*: 6 shots"),
        (
            ["training.online={rounds: 1, candidates: {shots: [2, 8]}}"],
            "training.online.candidates.shots in --set .*: 8 shots",
        ),
    ],
)
def test_shots_that_no_pool_can_fill_are_refused_when_the_recipe_is_composed(
    tiny: Tiny, tiny_catalog: Catalog, overrides: list[str], says: str
) -> None:
    with pytest.raises(RecipeError, match=says) as error:
        RunContext(tiny(*overrides), tiny_catalog)
    assert "Set sampler.k to at least" in error.value.hint and error.value.exit_code == 2


@pytest.mark.parametrize(
    "overrides",
    [
        ["evaluation.shots=[5]", "scoring.beam_search.shots=5"],
        ["scoring.candidates.shots=[9]", "training.rce.epochs=0", "training.grpo.epochs=0"],
        ["scoring.mining={min_positives: 0, shots: [9]}"],
        ["training.online={rounds: 0, candidates: {shots: [9]}}"],
    ],
)
def test_shots_that_are_not_used_are_not_refused(tiny: Tiny, tiny_catalog: Catalog, overrides: list[str]) -> None:
    RunContext(tiny(*overrides), tiny_catalog)


def test_a_model_that_does_not_show_its_hidden_states_is_named(tiny: Tiny, world: Any) -> None:
    with pytest.raises(RecipeError, match=r"encoder.hidden_states in .* is 1, and model 'tiny' shows no hidden states"):
        world.run(tiny("encoder.hidden_states=1"), until="encode")
    assert not world.work.exists()


# --- parts of third parties ---


def test_a_stage_of_a_third_party_runs_where_it_says_and_is_read_by_what_follows(
    tiny: Tiny, finished: Finished
) -> None:
    world, whole = finished
    recipe = tiny("stages=[shortest]")
    names = [stage.stage for stage in plan(RunContext(recipe, world.catalog, world.work)).stages]
    assert names.index("shortest") == names.index("balance") + 1
    result = world.run(recipe)
    assert list(result.stages).index("shortest") == list(result.stages).index("balance") + 1
    done = {name for name, state in result.stages.items() if state == "done"}
    # It may read what the reward and the balancer do not, so that candidates are measured in full.
    assert done == {"propose", "balance", "shortest", "rce", "grpo", "evaluate"}
    made = world.provenance("shortest")
    assert set(made["inputs"]) == {"balance"} and 0 < made["metadata"]["after"] < made["metadata"]["before"]
    assert {"kind": "stage", "name": "shortest"}.items() <= made["parts"][-1].items()
    rows = {row["name"]: row for row in Registry(world.url).stages(result.run_id)}
    assert Path(rows["shortest"]["path"]).name == f"shortest-{made['fingerprint']}"
    [rce] = [read_json(f / PROVENANCE) for f in world.work.glob("stages/rce-*") if f.name in rows["rce"]["path"]]
    assert rce["inputs"]["shortest"] == made["fingerprint"] and "balance" not in rce["inputs"]
    assert world.results(result.run_id)["curves"] != world.results(whole.run_id)["curves"]
    # Its settings decide its result.
    both, one = (
        Pipeline(RunContext(tiny(f"stages=[{{name: shortest, most: {most}}}]"), world.catalog)).fingerprints
        for most in (2, 1)
    )
    assert {name for name in one if one[name] != both[name]} == {"shortest", "rce", "grpo", "evaluate"}
    assert world.run(recipe, until="shortest", redo=("shortest",)).stages["shortest"] == "done"


def test_a_baseline_and_a_trainer_of_a_third_party_fill_their_cells(tiny: Tiny, finished: Finished) -> None:
    world, _ = finished
    recipe = tiny("training.copycat={epochs: 1}", "evaluation.baselines=[random, rule_first, {name: oracle}]")
    result = world.run(recipe)
    assert list(result.stages)[-5:] == ["mrt", "copycat", "online", "choose_baseline", "evaluate"]
    done = {name for name, state in result.stages.items() if state == "done"}
    assert done == {"copycat", "choose_baseline", "evaluate"}
    found = world.results(result.run_id)
    for method in ("rule_first", "copycat"):
        assert {row[1:3] for row in found["cells"] if row[0] == method} == {(s, n) for s in (1, 2) for n in (5, 10)}
    assert set(world.provenance("copycat")["inputs"]) == {"encode", "pool", "propose", "balance", "grpo"}
    assert {row[0] for row in found["curves"]} == {"sft", "rce", "grpo", "copycat"}


@pytest.mark.parametrize(
    ("override", "error", "says"),
    [
        ("stages=[nosuch]", PluginError, "no stage named 'nosuch' in --set"),
        ("stages=[shortest, shortest]", RecipeError, "stage 'shortest' is there already"),
        ("stages=[{name: shortest, least: 1}]", RecipeError, "unknown setting 'least'"),
        ("training.nosuch={epochs: 1}", PluginError, "no trainer named 'nosuch' in --set"),
        ("evaluation.baselines=[pointer]", PluginError, "selector 'pointer' in .* is not a BaselineSelector"),
        ("evaluation.baselines=[random, random]", RecipeError, "names 'random' twice"),
        (
            "training.online={rounds: 1, trainer: sft}",
            RecipeError,
            "'sft' in --set .* is not a trainer that learns from",
        ),
    ],
)
def test_a_name_that_does_not_fit_is_told_when_the_recipe_is_composed(
    tiny: Tiny, tiny_catalog: Catalog, override: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Pipeline(RunContext(tiny(override), tiny_catalog))


def test_the_registry_keeps_the_settings_of_trainers_with_their_defaults(finished: Finished) -> None:
    with Registry(finished[0].url) as registry:
        recipe = registry.runs()[0]["recipe"]
    assert recipe["training"]["rce"]["tau_start"] == 2.0 and recipe["training"]["sft"]["learning_rate"] > 0
    assert Recipe.of(recipe).training.trainers["rce"]["tau_end"] == 0.5
