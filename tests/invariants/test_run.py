"""The whole job, small: what a kill, a second run, a third-party part and a user's mistakes do to it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.io import read_json, read_jsonl
from leverplus_core.pipeline.run import compose, run
from leverplus_core.pipeline.workspace import Workspace
from leverplus_core.progress import Silent
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry

Small = Callable[..., Recipe]


def _predictions(registry: Registry, run_id: str) -> list[tuple[Any, ...]]:
    columns = "method, shots, question_id, position, demonstrations, raw_text, accuracy"
    return registry.sql(f"SELECT {columns} FROM predictions WHERE run_id = '{run_id}' ORDER BY 1, 2, 3")[1]


def _stage(folder: Path, name: str) -> Path:
    """The stage of the first run of the folder's registry: others may have left theirs beside it."""
    registry = Registry(f"sqlite:///{folder}/r.db")
    return next(Path(row["path"]) for row in registry.stages(registry.runs()[-1]["id"]) if row["name"] == name)


def test_the_grid_is_full_and_every_method_answers_the_same_rows(finished: tuple[Path, str]) -> None:
    folder, run_id = finished
    registry = Registry(f"sqlite:///{folder}/r.db")
    cells = {(c["method"], c["shots"], c["n"]) for c in registry.cells([run_id])}
    methods = ("random", "text_knn", "image_knn", "sft", "rce", "grpo", "oracle")
    grid = {(m, s, n) for m in methods for s in (1, 2) for n in (10, 20)}
    assert cells == grid | {("zero_shot", 0, n) for n in (10, 20)}
    rows: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for method, shots, question, position, *_ in _predictions(registry, run_id):
        rows.setdefault((method, shots), []).append((position, question))
    assert len({tuple(sorted(v)) for v in rows.values()}) == 1


def test_one_pool_a_question_at_all_stages(finished: tuple[Path, str]) -> None:
    folder, run_id = finished
    pools = read_json(_stage(folder, "pool") / "pools.json")
    for row in read_jsonl(_stage(folder, "beams") / "beams.jsonl") + read_jsonl(
        _stage(folder, "candidates") / "candidates.jsonl"
    ):
        assert set(row["demonstrations"]) <= set(pools["train"][row["question_id"]])
    for _, shots, question, _, demonstrations, *_ in _predictions(Registry(f"sqlite:///{folder}/r.db"), run_id):
        chosen = json.loads(demonstrations)
        assert len(chosen) == len(set(chosen)) == shots
        assert set(chosen) <= set(pools["validation"][question])
    assert len({tuple(p) for p in pools["train"].values()}) > 1


def test_labels_are_positions_in_the_question_s_own_pool(small: Small, finished: tuple[Path, str]) -> None:
    from leverplus_core.pipeline.stages import EncodedData, Pools, read_beams
    from leverplus_core.training.data import training_data

    folder, _ = finished
    dataset = compose(small(), Workspace(folder / "work")).dataset
    encoded, pools = EncodedData.load(_stage(folder, "encode")), Pools.load(_stage(folder, "pool"))
    table = encoded.table(dataset, pools)
    beams = read_beams(_stage(folder, "beams"))
    data = training_data(table, {q: [(k.demonstrations, k.score) for k in kept] for q, kept in beams.items()})
    by_id = {d.id: i for i, d in enumerate(dataset.demonstrations())}
    for row, (question, kept) in enumerate(beams.items()):
        for column, sequence in enumerate(kept):
            labels = data.groups.sequences[row, column].tolist()
            assert [pools.of["train"][question][p] for p in labels] == list(sequence.demonstrations)
            shown = table.batch([question]).candidates[0, labels[0]]
            assert shown.equal(table.bank[by_id[sequence.demonstrations[0]]])


def test_the_same_command_again_asks_nothing_and_changes_nothing(small: Small, finished: tuple[Path, str]) -> None:
    folder, run_id = finished
    registry = Registry(f"sqlite:///{folder}/r.db")
    before = _predictions(registry, run_id)
    again = run(small("name=renamed"), registry, folder / "work")
    assert again.run_id == run_id and again.calls == 0
    assert _predictions(registry, run_id) == before


class _Killed(Exception):
    pass


class _KillAt(Silent):
    """Dies when the n-th task starts, wherever that is."""

    def __init__(self, n: int) -> None:
        self.left = n

    def task(self, label: str, total: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise _Killed(label)
        return super().task(label, total)


def test_a_run_killed_anywhere_ends_with_the_same_result(
    small: Small, finished: tuple[Path, str], tmp_path: Path
) -> None:
    folder, run_id = finished
    url = f"sqlite:///{tmp_path}/r.db"
    kills = 0
    for n in (1, 2, 3, 2, 1, 4, 3, 2, 6, 5):
        try:
            run(small(), url, tmp_path / "work", progress=_KillAt(n))
            break
        except _Killed:
            kills += 1
    assert kills >= 5
    run(small(), url, tmp_path / "work")
    assert _predictions(Registry(url), run_id) == _predictions(Registry(f"sqlite:///{folder}/r.db"), run_id)


def test_features_and_pools_do_not_depend_on_the_thread_count(
    small: Small, finished: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = finished
    code = (
        "from leverplus_core import Recipe, run; import sys, json;"
        "recipe, out = Recipe.of(json.loads(sys.argv[1])), sys.argv[2];"
        "run(recipe, f'sqlite:///{out}/r.db', out + '/work', until='pool')"
    )
    recipe = json.dumps(small("threads=2").values())
    subprocess.run([sys.executable, "-c", code, recipe, str(tmp_path)], check=True, capture_output=True)
    assert read_json(_stage(tmp_path, "pool") / "pools.json") == read_json(_stage(folder, "pool") / "pools.json")


def _cli(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from leverplus_core.cli import main; main()", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}, timeout=120
    )


def test_leaderboard_compare_and_sql_print_json(finished: tuple[Path, str]) -> None:
    folder, run_id = finished
    environment = {"LEVERPLUS_REGISTRY": f"sqlite:///{folder}/r.db"}
    done = _cli("leaderboard", "--json", cwd=folder, **environment)
    rows = json.loads(done.stdout)
    assert done.returncode == 0 and {
        "run",
        "dataset",
        "model",
        "method",
        "shots",
        "n",
        "accuracy",
        "ci_low",
        "ci_high",
    } <= set(rows[0])
    assert all(0 <= row["ci_low"] <= row["accuracy"] <= row["ci_high"] <= 1 for row in rows)
    rows = json.loads(_cli("compare", "latest:rce", f"{run_id[:6]}:random", "--json", cwd=folder, **environment).stdout)
    assert {"shots", "n", "a", "b", "delta", "ci_low", "ci_high", "p_value"} <= set(rows[0])
    done = _cli("sql", "SELECT count(*) AS c FROM predictions", "--json", cwd=folder, **environment)
    assert json.loads(done.stdout) == [{"c": 20 * 15}]
    wide = _cli("leaderboard", cwd=folder, COLUMNS="80", **environment)
    assert max(map(len, wide.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "nosuch"), "no recipe 'nosuch'"),
        (("run", "--set", "sampler.name=mixd"), "Did you mean 'mix'"),
        (("run", "--set", "sampler.kk=3"), "kk"),
        (("run", "--set", "reward=nosuch"), "no reward named 'nosuch' in --set reward"),
        (("run", "--reward", "nosuch"), "no reward named 'nosuch' in --reward"),
        (("run", "--sampler", "rand:k"), "not key=value"),
        (("run", "--set", "dataset.train=5"), "32"),
        (("run", "--set", "model.path=./nowhere"), "nowhere"),
        (("run", "--plugin", "absent.py"), "no plugin file"),
        (("leaderboard",), "no registry"),
        (("compare", "a", "b"), "no registry"),
        (("run", "--registry", "sqlite:////proc/none/r.db"), "registry"),
        (("run", "--registry", "what"), "registry"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = _cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    mistakes = [line for line in done.stderr.splitlines() if line.startswith("leverplus: ")]
    assert len(mistakes) == 1 and says in mistakes[0] and "Traceback" not in done.stderr, done.stderr
    assert done.stdout == ""


def test_a_balancer_prints_its_table_or_says_why_it_dropped_everything(
    small_settings: list[str], finished: tuple[Path, str]
) -> None:
    folder, _ = finished
    environment = {"LEVERPLUS_REGISTRY": f"sqlite:///{folder}/other.db", "LEVERPLUS_WORK": str(folder / "work")}

    def balance(part: str, *more: str) -> subprocess.CompletedProcess[str]:
        settings = [word for text in (*small_settings, f"balancer={part}") for word in ("--set", text)]
        return _cli("balance", *settings, *more, cwd=folder, COLUMNS="80", **environment)

    done = balance("{name: limit}")
    assert done.returncode == 0 and "share of positives" in done.stdout and " pp" in done.stdout, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    metadata = json.loads(balance("{name: limit}", "--json").stdout)
    assert metadata["before"]["questions"] == metadata["after"]["questions"] == 30
    assert metadata["change"]["candidates"] == metadata["after"]["candidates"] - metadata["before"]["candidates"] < 0
    done = balance("{name: keep_all, min_pos: 99}")
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    [mistake] = [line for line in done.stderr.splitlines() if line.startswith("leverplus: ")]
    assert "the balancer dropped all 30 questions (" in mistake and "fewer than 99 positives, dropped: " in mistake


def test_what_stages_say_and_cost_is_in_the_registry(small: Small, finished: tuple[Path, str]) -> None:
    folder, run_id = finished
    metadata = {row["name"]: row["facts"] for row in Registry(f"sqlite:///{folder}/r.db").stages(run_id)}
    told = read_json(_stage(folder, "balance") / "balance.json")
    assert {k: metadata["balance"][k] for k in told} == told
    assert metadata["beams"]["cost"]["prompts"] > 0 and metadata["evaluate"]["cost"]["prompts"] > 0
    assert metadata["balance"]["cost"]["prompts"] == 0 < metadata["balance"]["cost"]["seconds"]
    # Of a stage that is reused, what making it cost; of an evaluation that had nothing left to do, what it had done.
    again = f"sqlite:///{folder}/again.db"
    with sqlite3.connect(folder / "r.db") as c:
        c.execute("VACUUM INTO ?", (str(folder / "again.db"),))
    result = run(small(), again, folder / "work")
    later = {row["name"]: row["facts"] for row in Registry(again).stages(run_id)}
    spent, more = metadata.pop("evaluate")["cost"], later.pop("evaluate")["cost"]
    assert result.calls == 0 and later == metadata
    assert more["prompts"] == spent["prompts"] and more["seconds"] > spent["seconds"]
