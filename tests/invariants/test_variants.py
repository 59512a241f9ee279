"""What one override changes: the trainings that run, where they start, shots that adapt, data measured elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def _stage(folder: Path, name: str) -> Path:
    """The stage of the small run: others have left theirs beside it."""
    registry = Registry(f"sqlite:///{folder}/r.db")
    return next(Path(row["path"]) for row in registry.stages(registry.runs()[-1]["id"]) if row["name"] == name)


def _weights(work: Path, stage: str) -> set[bytes]:
    return {p.read_bytes() for p in (work / "stages").glob(f"{stage}-*/selector.safetensors")}


def test_the_trainings_are_one_override_apart_and_start_alike(finished: tuple[Path, str], small: Small) -> None:
    """RCE, GRPO and both of them go on from the same SFT policy, and share every stage before."""
    folder, _ = finished
    url, work = f"sqlite:///{folder}/variants.db", folder / "work"
    before = len(_weights(work, "sft"))
    for override, on in (("training.grpo.epochs=0", ["sft", "rce"]), ("training.rce.epochs=0", ["sft", "grpo"])):
        result = run(small(override), url, work, until="online")
        assert result.calls == 0
        assert [s for s in ("sft", "rce", "grpo", "online") if result.stages[s] != "off"] == on
    alone = run(small("training.rce.epochs=0", "training.grpo.epochs=0"), url, work, until="online").stages
    assert {alone[s] for s in ("candidates", "mine", "balance", "rce", "grpo")} == {"off"}  # nothing would read them
    assert len(_weights(work, "sft")) == before


def test_rounds_on_policy_measure_what_the_policy_proposes_within_their_budget(
    finished: tuple[Path, str], small: Small
) -> None:
    folder, _ = finished
    url, work = f"sqlite:///{folder}/variants.db", folder / "work"
    online = "training.online={rounds: 2, budget: 60, candidates: {shots: [1, 2], num_beams: 1, samples: {1.0: 3}}}"
    run(small(online), url, work, until="online")
    made = next((work / "stages").glob("online-*"))
    metadata = read_json(made / "online.json")
    assert 0 < metadata["prompts"] <= 60 and len(metadata["rounds"]) >= 1
    assert 2 * sum(r["new_candidates"] for r in metadata["rounds"]) == metadata["prompts"]
    balanced = read_groups(_stage(folder, "balance") / "balanced.jsonl")
    after = read_groups(made / "candidates.jsonl")
    sources = {c.source.partition(":")[0] for q, group in after.items() for c in group if c not in balanced[q]}
    assert sources <= {"online1", "online2"} and "online1" in sources
    assert all(set(balanced[q]) <= set(after[q]) for q in balanced)


def test_a_policy_that_can_stop_is_evaluated_with_as_many_shots_as_it_thinks_enough(
    finished: tuple[Path, str], small: Small
) -> None:
    folder, _ = finished
    url, work = f"sqlite:///{folder}/variants.db", folder / "work"
    stop = ("selector.stop=true", "scoring.candidates.shots=[0, 1, 2]", "evaluation.methods=[rce, grpo, adaptive]")
    run_id = run(small(*stop), url, work).run_id
    registry = Registry(url)
    for most in (1, 2):
        shown = [len(p.demonstrations) for _, p in registry.predictions(run_id, "adaptive", most)]
        assert len(shown) == 20 and max(shown) <= most


@pytest.fixture(scope="module")
def rl_data(finished: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run's candidates, as a Lever-Plus file whose questions are told by row numbers."""
    folder, _ = finished
    out = tmp_path_factory.mktemp("lever-plus") / "rl_data.json"
    pools = read_json(_stage(folder, "pool") / "pools.json")["train"]
    groups = read_groups(_stage(folder, "candidates") / "candidates.jsonl")
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


def _cli(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from leverplus_core.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=dict(os.environ), timeout=120)


def test_one_command_trains_from_an_rl_data_file_alone_and_asks_no_vlm(rl_data: Path, tmp_path: Path) -> None:
    """The report's `--beam_data FILE --reward_mode separated --require_positive_query`."""
    arguments = ("train", "--imported", str(rl_data), "--reward", "separated", "--balancer", "top_pn:min_pos=1")
    epochs = ("--set", "training.rce.epochs=2", "--set", "training.grpo.epochs=1", "--set", "selector.width=32")
    done = _cli(*arguments, *epochs, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    states = {row["stage"]: row["status"] for row in json.loads(done.stdout)}
    assert states == {
        "encode": "imported", "pool": "imported", "beams": "off", "sft": "off", "candidates": "imported",
        "mine": "off", "balance": "done", "rce": "done", "grpo": "done", "online": "off",
    }  # fmt: skip
    assert "0 prompts asked" in done.stderr
    again = _cli(*arguments, *epochs, "--json", cwd=tmp_path)
    assert {row["status"] for row in json.loads(again.stdout)} == {"imported", "off", "reused"}


def test_data_with_features_of_its_own_cannot_be_evaluated_and_says_why(
    rl_data: Path, tmp_path: Path, small: Small
) -> None:
    with pytest.raises(DataError, match="no other question can be asked"):
        run(small(f"imported.folder={rl_data}"), f"sqlite:///{tmp_path}/r.db", tmp_path / "work")


def test_a_sweep_measures_once_shares_the_baselines_and_goes_on_after_a_kill(
    finished: tuple[Path, str], small_settings: list[str]
) -> None:
    from leverplus_core.pipeline.sweep import Axis, Sweep, run_sweep
    from leverplus_core.report.sweep import sweep_rows

    folder, _ = finished
    url, work = f"sqlite:///{folder}/sweep.db", folder / "work"
    settings = [s for s in small_settings if not s.startswith("balancer")]
    axes = [Axis.parse("balancer=keep_all,limit"), Axis.parse("reward=separated,mixed")]
    sweep = Sweep.of("demo", axes, 2, settings, name="tiny")
    registry = Registry(url)
    kept = set((work / "answers").glob("oracle-*"))

    class Killed(Exception):
        pass

    class KillAtFourthRun(Silent):
        def task(self, label: str, total: int) -> Any:
            if label == "rce" and sum(row["status"] == "done" for row in registry.runs()) == 3:
                raise Killed
            return super().task(label, total)

    with pytest.raises(Killed):
        run_sweep(sweep, registry, work, progress=KillAtFourthRun())
    assert sum(row["status"] == "done" for row in registry.runs()) == 3
    ids = run_sweep(sweep, registry, work)
    assert len(set(ids)) == 8 and all(row["status"] == "done" for row in registry.runs())
    assert set((work / "answers").glob("oracle-*")) == kept  # asked in the first run of all, and never again
    pools = {row["fingerprint"] for run_id in ids for row in registry.stages(run_id) if row["name"] == "pool"}
    assert len(pools) == 1
    rows = sweep_rows(registry, "tiny")
    assert {row["arm"] for row in rows} == {
        "keep_all, separated",
        "keep_all, mixed",
        "limit, separated",
        "limit, mixed",
    }
    assert {row["seeds"] for row in rows} == {2}
    assert {row["comparisons"] for row in rows} == {3 * 2 * 2}


def test_a_part_that_a_sweep_cannot_build_is_told_before_anything_runs(tmp_path: Path) -> None:
    done = _cli("sweep", "demo", "--over", "reward=separated,nosuch", cwd=tmp_path)
    assert done.returncode == 2 and "no reward named 'nosuch'" in done.stderr
    assert not list((tmp_path / ".leverplus").glob("stages/*"))


@pytest.mark.parametrize("ablation", ["blank_images", "shuffled_images", "shuffled_answers", "reversed"])
def test_an_ablation_is_one_override_and_touches_the_evaluation_alone(
    finished: tuple[Path, str], small: Small, ablation: str
) -> None:
    folder, run_id = finished
    url, work = f"sqlite:///{folder}/ablations.db", folder / "work"
    result = run(small(f"evaluation.ablation={ablation}", "evaluation.methods=[zero_shot, rce]"), url, work)
    assert {s for name, s in result.stages.items() if name != "evaluate"} <= {"reused", "off"}
    plain, other = Registry(f"sqlite:///{folder}/r.db"), Registry(url)
    for method, shots in (("zero_shot", 0), ("rce", 2)):
        before = [p for _, p in plain.predictions(run_id, method, shots)]
        after = [p for _, p in other.predictions(result.run_id, method, shots)]
        assert [p.demonstrations for p in before] == [p.demonstrations for p in after]
        if method == "zero_shot":
            assert before == after
    assert result.calls > 0


def test_evaluation_questions_among_those_trained_on_are_refused_by_name(
    finished: tuple[Path, str], small: Small
) -> None:
    folder, _ = finished
    work, url = folder / "work", f"sqlite:///{folder}/leaks.db"
    registry = Registry(url)
    run_id = run(small(), registry, work).run_id
    asked = registry.predictions(run_id, "rce", 1)[0][1].question_id
    assert registry.validation_questions(run_id) and asked not in registry.validation_questions(run_id)
    # As if the epoch had been picked on a question that is then asked.
    policies = (work / "stages").glob("rce-*/selector.json")
    changed = [p for p in policies if (content := json.loads(p.read_text()))["meta"]["validation_questions"]]
    originals = {p: p.read_text() for p in changed}
    try:
        for p, text in originals.items():
            content = json.loads(text)
            content["meta"]["validation_questions"].append(asked)
            p.write_text(json.dumps(content))
        with pytest.raises(DataError, match=f"leak: 1 evaluation questions .* trained on: {asked}"):
            run(small("evaluation.sizes=[10, 20, 21]"), registry, work)
    finally:
        for p, text in originals.items():
            p.write_text(text)


def test_verify_finds_what_was_changed_behind_the_registry_s_back(finished: tuple[Path, str], tmp_path: Path) -> None:
    import shutil
    import sqlite3

    folder, run_id = finished
    for file in folder.glob("r.db*"):
        shutil.copy(file, tmp_path / file.name)
    options = ("--registry", f"sqlite:///{tmp_path}/r.db", "--work", str(folder / "work"), "--json")
    sound = _cli("verify", "latest", "--sample", "12", *options, cwd=tmp_path)
    assert sound.returncode == 0, sound.stderr
    metadata = json.loads(sound.stdout)
    assert (metadata["cells"], metadata["predictions"], metadata["asked_again"]) == (30, 300, 12) and not metadata[
        "differences"
    ]
    with sqlite3.connect(tmp_path / "r.db") as db:
        change = f"run_id = '{run_id}' AND method = 'rce' AND shots = 1 AND position = 3"
        db.execute(f"UPDATE predictions SET accuracy = 1 - accuracy, raw_text = 'other ' || raw_text WHERE {change}")
        db.execute(
            f"UPDATE cells SET ci_low = ci_low / 2 WHERE run_id = '{run_id}' AND method = 'oracle' AND shots = 2"
        )
    found = _cli("verify", "latest", "--sample", "300", *options, cwd=tmp_path)
    assert found.returncode == 1, found.stderr
    kinds = {(d["kind"], d["method"], d["shots"]) for d in json.loads(found.stdout)["differences"]}
    changed = {("accuracy", "rce", 1), ("prediction", "rce", 1), ("answer", "rce", 1)}
    assert kinds >= changed | {(f"cell n={n}", "oracle", 2) for n in (10, 20)} | {("cell n=10", "rce", 1)}
    assert {(method, shots) for _, method, shots in kinds} == {("rce", 1), ("oracle", 2)}


def test_an_evaluation_of_what_has_changed_since_is_not_taken_for_the_present_one(
    finished: tuple[Path, str], small: Small
) -> None:
    """The recipe, and with it the run, stays the same where only the content of a file that it names changes."""
    import sqlite3

    folder, run_id = finished
    with sqlite3.connect(folder / "r.db") as own, sqlite3.connect(folder / "stale.db") as copy:
        own.backup(copy)  # what is still in the write-ahead log, too
    url = f"sqlite:///{folder}/stale.db"
    before = Registry(f"sqlite:///{folder}/r.db").predictions(run_id, "rce", 1)
    with sqlite3.connect(folder / "stale.db") as db:
        db.execute("UPDATE predictions SET accuracy = 1 - accuracy WHERE method = 'rce'")
    run(small(), url, folder / "work")
    assert Registry(url).predictions(run_id, "rce", 1) != before  # finished as far as anybody can tell
    with sqlite3.connect(folder / "stale.db") as db:
        db.execute("UPDATE stages SET fingerprint = 'of other data' WHERE name = 'evaluate'")
    run(small(), url, folder / "work")
    registry = Registry(url)
    assert registry.predictions(run_id, "rce", 1) == before

    def figures(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value for key, value in cell.items() if key != "name"} for cell in cells]  # others may rename it

    assert figures(registry.cells([run_id])) == figures(Registry(f"sqlite:///{folder}/r.db").cells([run_id]))
