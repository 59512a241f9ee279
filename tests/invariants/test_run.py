"""The whole job, small, on the demo model: what the stages hand on, what is recorded, and what commands print of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.io import read_json, read_jsonl
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.graph import Pipeline
from leverplus_core.pipeline.run import run
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry

Small = Callable[..., Recipe]
Cli = Callable[..., Any]


def _predictions(url: str, run_id: str) -> list[tuple[Any, ...]]:
    columns = "method, shots, question_id, position, demonstrations, raw_text, accuracy"
    return Registry(url).sql(f"SELECT {columns} FROM predictions WHERE run_id = '{run_id}' ORDER BY 1, 2, 3")[1]


def _metadata(url: str, run_id: str) -> dict[str, dict[str, Any]]:
    return {row["name"]: row["metadata"] for row in Registry(url).stages(run_id)}


def test_the_grid_is_full_and_every_method_answers_the_same_questions(finished: Any) -> None:
    run_id = finished.result.run_id
    cells = {(c["method"], c["shots"], c["n"]) for c in Registry(finished.url).cells([run_id])}
    methods = ("random", "text_knn", "image_knn", "sft", "rce", "grpo", "oracle")
    grid = {(m, s, n) for m in methods for s in (1, 2) for n in (10, 20)}
    assert cells == grid | {("zero_shot", 0, n) for n in (10, 20)}
    rows: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for method, shots, question, position, *_ in _predictions(finished.url, run_id):
        rows.setdefault((method, shots), []).append((position, question))
    assert len({tuple(sorted(v)) for v in rows.values()}) == 1


def test_each_question_has_one_pool_in_all_stages(finished: Any) -> None:
    pools = read_json(finished.stage("pool") / "pools.json")
    sequences = read_jsonl(finished.stage("beam_search") / "beams.jsonl")
    for row in sequences + read_jsonl(finished.stage("propose") / "candidates.jsonl"):
        assert set(row["demonstrations"]) <= set(pools["train"][row["question_id"]])
    for method, shots, question, _, demonstrations, *_ in _predictions(finished.url, finished.result.run_id):
        chosen = json.loads(demonstrations)
        assert len(chosen) == len(set(chosen)) <= shots
        assert len(chosen) == shots or method == "oracle", "the oracle shows at most so many"
        assert set(chosen) <= set(pools["validation"][question])
    assert len({tuple(p) for p in pools["train"].values()}) > 1


def test_labels_are_positions_in_the_question_s_own_pool(small: Small, finished: Any, catalog: Catalog) -> None:
    from leverplus_core.pipeline.stages.beam_search import read_sequences
    from leverplus_core.training.data import training_data

    pipeline = Pipeline(RunContext(small(), catalog, finished.work))
    features = pipeline.context.selector_features(pipeline.inputs(pipeline.stage("sft")))
    pools = read_json(finished.stage("pool") / "pools.json")["train"]
    sequences = read_sequences(finished.stage("beam_search"))
    data = training_data(features, {q: [(k.demonstrations, k.score) for k in kept] for q, kept in sequences.items()})
    row = {d.id: i for i, d in enumerate(pipeline.context.dataset.demonstrations())}
    assert len(sequences) == 20
    for question_row, (question, kept) in enumerate(sequences.items()):
        batch = features.batch([question])
        for column, sequence in enumerate(kept):
            labels = data.groups.sequences[question_row, column].tolist()
            assert [pools[question][position] for position in labels] == list(sequence.demonstrations)
            for position, demonstration in zip(labels, sequence.demonstrations, strict=True):
                for block in ("image", "text", "answer"):
                    shown = batch.candidates[block][0, position]
                    assert shown.equal(features.bank.at(slice(row[demonstration], row[demonstration] + 1))[block][0])


def test_the_same_command_again_asks_nothing_and_changes_nothing(small: Small, finished: Any, tmp_path: Path) -> None:
    copy = finished.copy(tmp_path / "copy")
    run_id = copy.result.run_id
    before, told = _predictions(copy.url, run_id), _metadata(copy.url, run_id)
    again = run(small("name=renamed"), copy.url, copy.work)
    assert again.run_id == run_id and again.calls == 0 and set(again.stages.values()) == {"reused", "off"}
    assert _predictions(copy.url, run_id) == before
    assert _metadata(copy.url, run_id) == told, "the cost of a stage that is reused is that of computing it"


def test_what_stages_say_and_cost_is_in_the_registry(finished: Any) -> None:
    metadata = _metadata(finished.url, finished.result.run_id)
    told = read_json(finished.stage("balance") / "balance.json")
    assert {k: metadata["balance"][k] for k in told} == told
    prompts = {stage: row["cost"]["prompts"] for stage, row in metadata.items()}
    assert prompts["beam_search"] > 0 and prompts["propose"] > 0 and prompts["evaluate"] > 0
    assert sum(prompts.values()) == finished.result.calls
    assert metadata["balance"]["cost"]["prompts"] == 0 < metadata["balance"]["cost"]["seconds"]


def test_features_and_pools_do_not_depend_on_the_thread_count(small: Small, finished: Any, tmp_path: Path) -> None:
    code = (
        "from leverplus_core import Recipe, run; import sys, json;"
        "recipe, out = Recipe.of(json.loads(sys.argv[1])), sys.argv[2];"
        "run(recipe, f'sqlite:///{out}/r.db', out + '/work', until='pool')"
    )
    recipe = json.dumps(small("threads=2").values())
    subprocess.run([sys.executable, "-c", code, recipe, str(tmp_path)], check=True, capture_output=True)
    [pools] = tmp_path.glob("work/stages/pool-*/pools.json")
    assert pools.parent.name == finished.stage("pool").name
    assert read_json(pools) == read_json(finished.stage("pool") / "pools.json")


def test_leaderboard_compare_and_sql_print_json(finished: Any, cli: Cli) -> None:
    environment = {"LEVERPLUS_REGISTRY": finished.url}
    done = cli("leaderboard", "--json", **environment)
    rows = json.loads(done.stdout)
    shown = {"run", "dataset", "model", "method", "shots", "n", "accuracy", "ci_low", "ci_high"}
    assert done.returncode == 0 and shown <= set(rows[0])
    assert all(0 <= row["ci_low"] <= row["accuracy"] <= row["ci_high"] <= 1 for row in rows)
    other = f"{finished.result.run_id[:6]}:random"
    rows = json.loads(cli("compare", "latest:rce", other, "--json", **environment).stdout)
    assert {"shots", "n", "a", "b", "delta", "ci_low", "ci_high", "p_value"} <= set(rows[0])
    done = cli("sql", "SELECT count(*) AS c FROM predictions", "--json", **environment)
    assert json.loads(done.stdout) == [{"c": 20 * 15}]
    wide = cli("leaderboard", COLUMNS="80", **environment)
    assert wide.stdout and max(map(len, wide.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "nosuch"), "no recipe 'nosuch'"),
        (("run", "--set", "sampler.name=mixd"), "Did you mean 'mixed'"),
        (("run", "--set", "sampler.kk=3"), "kk"),
        (("run", "--set", "reward=nosuch"), "no reward named 'nosuch' in --set reward"),
        (("run", "--reward", "nosuch"), "no reward named 'nosuch' in --reward"),
        (("run", "--sampler", "random:k"), "not key=value"),
        (("run", "--set", "dataset.train=5"), "32"),
        (("run", "--set", "model.path=./nowhere"), "nowhere"),
        (("run", "--plugin", "absent.py"), "no plugin file"),
        (("run", "--until", "rcee"), "no stage"),
        (("run", "--set", "evaluation.shots=[9]", "--set", "sampler.k=3"), "9 shots cannot be filled from a pool of 3"),
        (("run", "--set", "evaluation.sizes=[-4]"), "evaluation.sizes"),
        (("run", "--set", "evaluation.shots=[0]"), "evaluation.shots"),
        (("sweep", "--over", "reward=separated,nosuch"), "no reward named 'nosuch'"),
        (("leaderboard",), "no registry"),
        (("compare", "a", "b"), "no registry"),
        (("run", "--registry", "sqlite:////proc/none/r.db"), "registry"),
        (("run", "--registry", "what"), "registry"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = cli(*arguments)
    assert done.returncode == 2, done.stderr
    mistakes = [line for line in done.stderr.splitlines() if line.startswith("leverplus: ")]
    assert len(mistakes) == 1 and says in mistakes[0] and "Traceback" not in done.stderr, done.stderr
    assert done.stdout == "" and not list(tmp_path.rglob("responses.sqlite")), "nothing was asked"


def test_a_balancer_prints_its_table_or_says_why_it_dropped_everything(
    small_settings: list[str], finished: Any, cli: Cli
) -> None:
    environment = {"LEVERPLUS_REGISTRY": finished.other("balance"), "LEVERPLUS_WORK": str(finished.work)}

    def balance(part: str, *more: str) -> Any:
        settings = [word for text in (*small_settings, f"balancer={part}") for word in ("--set", text)]
        return cli("run", "--until", "balance", *settings, *more, COLUMNS="80", **environment)

    done = balance("{name: limit}")
    assert done.returncode == 0 and "positive rate" in done.stdout and " pp" in done.stdout, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    metadata = json.loads(balance("{name: limit}", "--json").stdout)
    assert metadata["before"]["questions"] == metadata["after"]["questions"] == 20
    assert metadata["change"]["candidates"] == metadata["after"]["candidates"] - metadata["before"]["candidates"] < 0
    done = balance("{name: keep_all, min_pos: 99}")
    assert done.returncode == 0 and "fewer than 99 positives, dropped" in done.stdout, done.stderr
