"""What one override changes: the trainings that run, where they start, shots that adapt, data measured elsewhere."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.candidates.store import read_groups
from leverplus_core.errors import DataError
from leverplus_core.io import read_json
from leverplus_core.pipeline.run import run
from leverplus_core.progress import Silent
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry

Small = Callable[..., Recipe]
Cli = Callable[..., Any]


def _weights(work: Path, stage: str) -> set[bytes]:
    return {p.read_bytes() for p in (work / "stages").glob(f"{stage}-*/selector.safetensors")}


def test_the_trainings_are_one_override_apart_and_start_alike(finished: Any, small: Small) -> None:
    """RCE, GRPO and both of them continue from the same SFT policy, and share every stage before."""
    url, work = finished.other("variants"), finished.work
    before = _weights(work, "sft")
    for override, on in (("training.grpo.epochs=0", ["sft", "rce"]), ("training.rce.epochs=0", ["sft", "grpo"])):
        result = run(small(override), url, work, until="online")
        shared = ("encode", "pool", "beam_search", "sft", "propose", "balance")
        assert {result.stages[s] for s in shared} == {"reused"}, "the judge alone may ask: GRPO starts elsewhere"
        assert [s for s in ("sft", "rce", "grpo", "online") if result.stages[s] != "off"] == on
    alone = run(small("training.rce.epochs=0", "training.grpo.epochs=0"), url, work, until="online").stages
    assert {alone[s] for s in ("propose", "mine", "balance", "rce", "grpo")} == {"off"}  # nothing would read them
    assert _weights(work, "sft") == before and len(before) == 1


def test_rounds_on_policy_measure_what_the_policy_proposes_within_their_budget(finished: Any, small: Small) -> None:
    url, work = finished.other("variants"), finished.work
    online = "training.online={rounds: 2, budget: 60, candidates: {shots: [1, 2], num_beams: 1, samples: {1.0: 3}}}"
    run(small(online), url, work, until="online")
    made = next((work / "stages").glob("online-*"))
    metadata = read_json(made / "online.json")
    assert 0 < metadata["prompts"] <= 60 and len(metadata["rounds"]) >= 1
    # Neither the reward nor the balancer reads a probability: a candidate costs its answer alone.
    assert sum(r["new_candidates"] for r in metadata["rounds"]) == metadata["prompts"]
    balanced = read_groups(finished.stage("balance") / "balanced.jsonl")
    after = read_groups(made / "candidates.jsonl")
    sources = {c.source.partition(":")[0] for q, group in after.items() for c in group if c not in balanced[q]}
    assert sources <= {"online1", "online2"} and "online1" in sources
    assert all(set(balanced[q]) <= set(after[q]) for q in balanced)


def test_a_policy_that_can_stop_is_evaluated_with_as_many_shots_as_it_considers_enough(
    finished: Any, small: Small
) -> None:
    url, work = finished.other("variants"), finished.work
    stop = ("selector.stop=true", "scoring.candidates.shots=[0, 1, 2]")
    methods = ("evaluation.baselines=[]", "evaluation.policies=[rce, grpo, adaptive]")
    run_id = run(small(*stop, *methods), url, work).run_id
    registry = Registry(url)
    assert {cell["method"] for cell in registry.cells([run_id])} == {"rce", "grpo", "adaptive"}
    for most in (1, 2):
        shown = [len(p.demonstrations) for _, p in registry.cell_predictions(run_id, "adaptive", most)]
        assert len(shown) == 20 and max(shown) <= most
    alone = run(small(*stop, methods[0], "evaluation.policies=[adaptive]"), url, work).run_id
    assert {cell["method"] for cell in registry.cells([alone])} == {"adaptive"}
    both = [registry.cell_predictions(i, "adaptive", 2) for i in (run_id, alone)]
    assert both[0] == both[1], "adaptive is the policy trained last, whichever others are evaluated"


@pytest.fixture(scope="module")
def rl_data(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run's candidates, as a Lever-Plus file whose questions are told by row numbers."""
    out = tmp_path_factory.mktemp("lever-plus") / "rl_data.json"
    pools = read_json(finished.stage("pool") / "pools.json")["train"]
    groups = read_groups(finished.stage("propose") / "candidates.jsonl")
    row = {q: i for i, q in enumerate(sorted(pools))}
    content: dict[str, Any] = {}
    for question, group in groups.items():
        pool = pools[question]
        content[str(row[question])] = {
            "query": {"query_id": row[question], "question": f"what is in picture {row[question]}?"},
            "candidate_pool_ids": [row[d] for d in pool],
            "pointer_candidates": [
                {
                    "pointer": [pool.index(d) for d in c.demonstrations],
                    "pointer_global": [row[d] for d in c.demonstrations],
                    "gen_method": c.source, "vqa_pred_answer": c.prediction,
                    "vqa_correct": int(c.correct), "vqa_acc_score": c.accuracy, "vqa_gt_prob": 0.5,
                }
                for c in group if len(c.demonstrations) == 2
            ],
        }  # fmt: skip
    out.write_text(json.dumps(content), encoding="utf-8")
    return out


def test_one_command_trains_from_an_rl_data_file_alone_and_asks_no_model(rl_data: Path, cli: Cli) -> None:
    """The report's `--beam_data FILE --reward_mode separated --require_positive_query`."""
    arguments = ("run", "--imported", str(rl_data), "--reward", "separated", "--balancer", "top_pn:min_pos=1")
    settings = ("training.rce.epochs=2", "training.grpo.epochs=1", "training.mrt.epochs=0", "selector.width=32")
    epochs = [word for setting in settings for word in ("--set", setting)]
    done = cli(*arguments, *epochs, "--json")
    assert done.returncode == 0, done.stderr
    states = {row["stage"]: row["status"] for row in json.loads(done.stdout)}
    assert states == {
        "encode": "imported", "pool": "imported", "beam_search": "off", "sft": "off", "propose": "imported",
        "mine": "off", "balance": "done", "rce": "done", "grpo": "done", "mrt": "off", "online": "off",
        "choose_baseline": "off", "evaluate": "off",
    }  # fmt: skip
    assert "0 model calls" in done.stderr
    again = cli(*arguments, *epochs, "--json")
    assert {row["status"] for row in json.loads(again.stdout)} == {"imported", "off", "reused"}
    refused = cli(*arguments, *epochs, "--redo", "propose")
    assert refused.returncode == 2 and "stage 'propose' is imported from" in refused.stderr


def test_a_sweep_measures_once_shares_stages_and_goes_on_after_a_kill(finished: Any, small_settings: list[str]) -> None:
    from leverplus_core.pipeline.sweep import Axis, Sweep, run_sweep
    from leverplus_core.report.sweep import sweep_rows

    work = finished.work
    settings = [s for s in small_settings if not s.startswith("balancer")]
    axes = [Axis.parse("balancer=keep_all,limit"), Axis.parse("reward=separated,mixed")]
    sweep = Sweep.of("demo", axes, 2, settings, name="tiny")
    registry = Registry(finished.other("sweep"))

    class Killed(Exception):
        pass

    class KillAtFourthRun(Silent):
        def task(self, label: str, total: int) -> Any:
            if (
                label.endswith(": rce")
                and "stage" not in label
                and sum(row["status"] == "done" for row in registry.runs()) == 3
            ):
                raise Killed
            return super().task(label, total)

    with pytest.raises(Killed):
        run_sweep(sweep, registry, work, progress=KillAtFourthRun())
    assert sum(row["status"] == "done" for row in registry.runs()) == 3
    ids = run_sweep(sweep, registry, work)
    assert len(set(ids)) == 8 and all(row["status"] == "done" for row in registry.runs())
    stages = {run_id: {row["name"]: row["fingerprint"] for row in registry.stages(run_id)} for run_id in ids}
    count = {name: len({of[name] for of in stages.values()}) for name in stages[ids[0]]}
    assert count == {
        "encode": 1, "pool": 1, "beam_search": 1, "sft": 2, "propose": 2, "balance": 4, "rce": 8, "grpo": 8,
        "choose_baseline": 1, "evaluate": 8,
    }  # fmt: skip
    baselines = {str(registry.cell_predictions(run_id, "oracle", 2)) for run_id in ids}
    assert len(baselines) == 1  # seeds change trainings, not the evaluation
    rows = sweep_rows(registry, "tiny")
    arms = {"keep_all, separated", "keep_all, mixed", "limit, separated", "limit, mixed"}
    assert {row["arm"] for row in rows} == arms
    assert {row["seeds"] for row in rows} == {2}
    # The primary endpoint compares three arms with the first; the grid does so at two numbers of shots. Half of the 20
    # questions that are held out are evaluated: of the sizes 10 and 20, one is left.
    assert {row["comparisons"] for row in rows if row["primary"] and row["baseline"]} == {3}
    assert {row["comparisons"] for row in rows if not row["primary"]} == {3 * 2 * 1}
    asked = {p.question_id for run_id in ids for _, p in registry.cell_predictions(run_id, "oracle", 2)}
    assert len(asked) == 10 and all(q.startswith("demo-train-") for q in asked)


def test_several_seeds_are_one_arm_with_one_table(finished: Any, small_settings: list[str], cli: Cli) -> None:
    settings = [word for setting in small_settings for word in ("--set", setting)]
    url = finished.other("seeds")
    command = ("run", "demo", *settings, "--seeds", "2", "--registry", url, "--work", str(finished.work))
    done = cli(*command, "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    runs = Registry(url).runs()
    assert {(row["name"], row["status"], row["sweep"]) for row in runs} == {
        ("demo (seed=0)", "done", "demo"), ("demo (seed=1)", "done", "demo"),
    }  # fmt: skip
    assert shown["headline"]["seeds"] == 2 and set(shown["headline"]["runs"]) == {row["id"] for row in runs}
    assert finished.result.run_id in shown["headline"]["runs"]  # its first seed is the run without --seeds
    scores = [Registry(url).scores(row["id"], "rce", 2).accuracy for row in runs]
    (cell,) = (r for r in shown["leaderboard"] if (r["method"], r["shots"], r["n"]) == ("rce", 2, 20))
    assert cell["accuracy"] == pytest.approx(sum(s.mean() for s in scores) / 2)
    text = cli(*command, COLUMNS="80").stdout
    assert text.index("demo (") < text.index("primary endpoint of demo: mean over 1, 2 shots, n = 20, 2 seeds")
    assert max(map(len, text.splitlines())) <= 80
    assert "neither --until nor --redo" in cli(*command, "--until", "pool").stderr


def test_ablations_answer_beside_their_policy_with_the_same_choice(finished: Any, small: Small, cli: Cli) -> None:
    url, kinds = finished.other("ablations"), ["blank_images", "shuffled_images", "shuffled_answers", "reversed"]
    methods = ("evaluation.baselines=[zero_shot]", "evaluation.policies=[sft, rce]")
    result = run(small(f"evaluation.ablations=[{', '.join(kinds)}]", *methods), url, finished.work)
    decided_anew = ("choose_baseline", "evaluate")
    assert {s for name, s in result.stages.items() if name not in decided_anew} <= {"reused", "off"}
    plain, other = Registry(finished.url), Registry(url)
    found = {cell["method"] for cell in other.cells([result.run_id])}
    assert found == {"zero_shot", "sft", "rce", *(f"rce+{kind}" for kind in kinds)}  # of the policy trained last
    before = plain.cell_predictions(finished.result.run_id, "rce", 2)
    assert other.cell_predictions(result.run_id, "rce", 2) == before
    for kind in kinds:
        after = other.cell_predictions(result.run_id, f"rce+{kind}", 2)
        assert [p.demonstrations for _, p in after] == [p.demonstrations for _, p in before]
        if kind != "reversed":  # this small model says the same, whatever the order of two demonstrations
            assert [p.raw_text for _, p in after] != [p.raw_text for _, p in before], kind
    assert result.calls > 0
    # An audit asks each answer again with what was shown for it.
    options = ("--registry", url, "--work", str(finished.work), "--json")
    audited = json.loads(cli("audit", result.run_id, "--sample", "1000", *options).stdout)
    assert (audited["asked_again"], audited["differences"]) == (20 * (1 + 6 * 2), [])


def test_evaluation_questions_among_those_trained_on_are_refused_by_name(
    finished: Any, small: Small, tmp_path: Path
) -> None:
    copy = finished.copy(tmp_path / "copy")
    registry, run_id = Registry(copy.url), copy.result.run_id
    asked = registry.cell_predictions(run_id, "rce", 1)[0][1].question_id
    assert registry.validation_questions(run_id) and asked not in registry.validation_questions(run_id)
    # As if the policy had been trained on a question that is then asked.
    [file] = copy.work.glob(f"stages/{finished.stage('rce').name}/selector.json")
    content = json.loads(file.read_text())
    content["meta"]["learned_from"].append(asked)
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"leak: 1 evaluation questions .* trained on: {asked}"):
        run(small("evaluation.sizes=[10, 20, 21]"), registry, copy.work)


def test_an_audit_finds_what_was_changed_in_the_registry(finished: Any, cli: Cli, tmp_path: Path) -> None:
    copy, run_id = finished.copy(tmp_path / "copy"), finished.result.run_id
    options = ("--registry", copy.url, "--work", str(copy.work), "--json")
    sound = cli("audit", "latest", "--sample", "12", *options)
    assert sound.returncode == 0, sound.stderr
    found = json.loads(sound.stdout)
    assert (found["cells"], found["predictions"], found["asked_again"]) == (30, 300, 12)
    assert not found["differences"] and not found["changed_code"]
    [asked] = found["evaluations"]
    assert (asked["run"], asked["split"], asked["n"], found["split"], found["runs"]) == (
        run_id, "validation", 20, "validation", 1
    )  # fmt: skip
    assert found["chose_an_epoch"]["questions"] > 0 == found["chose_an_epoch"]["evaluated"]
    listed = cli("audit", "latest", "--asked", *options)
    assert listed.returncode == 0 and json.loads(listed.stdout)["evaluations"] == [asked]
    said = cli("audit", "latest", "--asked", *options[:-1])
    assert f"{asked['asked_at'][:19]}" in said.stdout and "asked by 1 run in this registry" in said.stderr
    with sqlite3.connect(copy.folder / "r.db") as db:
        change = f"run_id = '{run_id}' AND method = 'rce' AND shots = 1 AND position = 3"
        db.execute(f"UPDATE predictions SET accuracy = 1 - accuracy, raw_text = 'other ' || raw_text WHERE {change}")
        db.execute(
            f"UPDATE cells SET ci_low = ci_low / 2 WHERE run_id = '{run_id}' AND method = 'oracle' AND shots = 2"
        )
    told = cli("audit", "latest", "--sample", "300", *options)
    assert told.returncode == 1, told.stderr
    kinds = {(d["kind"], d["method"], d["shots"]) for d in json.loads(told.stdout)["differences"]}
    changed = {("accuracy", "rce", 1), ("prediction", "rce", 1), ("answer", "rce", 1)}
    assert kinds >= changed | {(f"cell n={n}", "oracle", 2) for n in (10, 20)} | {("cell n=10", "rce", 1)}
    assert {(method, shots) for _, method, shots in kinds} == {("rce", 1), ("oracle", 2)}


def test_the_registry_is_filled_again_from_the_finished_evaluation(finished: Any, small: Small, tmp_path: Path) -> None:
    """Whatever became of its rows, the same command ends with what the run's evaluation found."""
    copy, run_id = finished.copy(tmp_path / "copy"), finished.result.run_id
    registry = Registry(copy.url)
    before, cells = registry.cell_predictions(run_id, "rce", 1), registry.cells([run_id])
    with sqlite3.connect(copy.folder / "r.db") as db:
        db.execute("UPDATE predictions SET accuracy = 1 - accuracy WHERE method = 'rce'")
        db.execute("DELETE FROM cells WHERE method = 'oracle'")
    assert registry.cell_predictions(run_id, "rce", 1) != before and registry.cells([run_id]) != cells
    assert run(small(), copy.url, copy.work).calls == 0
    assert registry.cell_predictions(run_id, "rce", 1) == before and registry.cells([run_id]) == cells
