"""`leverplus candidates ...` and `run --until` as typed: what they print, write and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from leverplus_core.candidates.store import read_groups, write_groups
from leverplus_core.records import Candidate

A = Candidate("1", ("a", "b"), "beam", "cat.", "cat", 0.6, True, -1.5, 0.1, 0.7)
B = Candidate("1", ("b", "a"), "random", "dog", "dog", 0.0, False, -2.5, 0.0, 0.1)
C = Candidate("2", ("a",), "beam", "red", "red", 1.0, True, -0.5, 0.2, 1.0)

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _files(tmp_path: Path) -> None:
    """Candidates files in the folder where commands are called."""
    write_groups(tmp_path / "a.jsonl", {"1": [A], "2": [C]})
    write_groups(tmp_path / "b.jsonl", {"1": [A, B]})
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "cut.jsonl").write_bytes((tmp_path / "b.jsonl").read_bytes()[:-20])
    write_groups(tmp_path / "other.jsonl", {"2": [replace(C, prediction="blue")]})


def test_merge_writes_the_union_and_prints_each_shape(cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli("candidates", "merge", "a.jsonl", "b.jsonl", "-o", "new/u.jsonl", "--json")
    metadata = json.loads(out)
    assert code == 0 and [row["candidates"] for row in metadata["inputs"]] == [2, 2]
    assert metadata["union"] == {
        "file": "new/u.jsonl", "questions": 2, "candidates": 3,
        "candidates_per_question": 1.5, "positive_rate": 2 / 3,
    }  # fmt: skip
    assert read_groups(tmp_path / "new/u.jsonl") == {"1": [A, B], "2": [C]}
    code, out, err = cli("candidates", "merge", "a.jsonl", "b.jsonl", "-o", "u.jsonl")
    assert code == 0 and "66.7%" in out and "1 candidate" in err and max(map(len, out.splitlines())) <= 80


def test_inspect_prints_at_80_columns_and_as_json(cli: Cli) -> None:
    code, out, _ = cli("candidates", "inspect", "b.jsonl")
    assert code == 0 and max(map(len, out.splitlines())) <= 80
    for words in ("without a positive", "random candidates", "in another order", "not checked"):
        assert words in out
    health = json.loads(cli("candidates", "inspect", "b.jsonl", "--json")[1])
    assert health["headroom"]["headroom"] == pytest.approx(0.3)
    assert health["findings"]["same_demonstrations"] == {"candidates": 1, "first": "1: b, a"}


def test_balance_takes_a_file_made_by_hand(cli: Cli, tmp_path: Path) -> None:
    cli("candidates", "merge", "a.jsonl", "b.jsonl", "-o", "u.jsonl")
    code, out, _ = cli(
        "candidates", "balance", "u.jsonl", "--balancer", "top_pn:n=0,fill=false", "-o", "v.jsonl", "--json"
    )
    metadata = json.loads(out)
    assert code == 0 and (metadata["before"]["candidates"], metadata["after"]["candidates"]) == (3, 2)
    assert read_groups(tmp_path / "v.jsonl") == {"1": [A], "2": [C]}
    code, out, _ = cli("candidates", "balance", "u.jsonl", "--balancer", "top_pn:n=0,fill=false", "-o", "v.jsonl")
    assert code == 0 and "-1" in out and max(map(len, out.splitlines())) <= 80


SMALL = [
    "dataset.train=60",
    "dataset.validation=20",
    "sampler.k=8",
    "scoring.questions=16",
    "scoring.candidates.questions=null",
    "scoring.beam_search={num_beams: 1, expand_top_k: 2}",
    "scoring.candidates={shots: [1], num_beams: 0, samples: {}, retrieval: 0, random: 1}",
    "training.sft.epochs=1",
    "selector.width=32",
    "threads=1",
]


def test_mine_prints_what_it_brought_inspect_finds_the_run_and_its_file_can_be_trained_on(cli: Cli) -> None:
    settings = [word for text in SMALL for word in ("--set", text)]
    code, out, err = cli("run", "--until", "mine", *settings)
    assert code == 2 and out == "" and "mining is off" in err and len(err.splitlines()) == 1
    settings += ["--set", "scoring.mining.min_positives=2"]
    metadata = json.loads(cli("run", "--until", "mine", *settings, "--json")[1])
    assert metadata["before"]["candidates"] == metadata["before"]["questions"] == 16
    assert metadata["candidates"] == metadata["after"]["candidates"] - 16 > 0
    assert metadata["helped"] > 0 and metadata["positives_per_prompt"] == metadata["positives"] / metadata["prompts"]
    code, out, _ = cli("run", "--until", "mine", *settings)
    assert code == 0 and "mine:stratified" in out and max(map(len, out.splitlines())) <= 80
    health = json.loads(cli("candidates", "inspect", "latest", "--json")[1])
    assert "/mine-" in health["file"] and health["summary"] == metadata["after"]
    assert set(health["sources"]) == {"random", "mine:swap", "mine:stratified"}
    for name, found in health["findings"].items():
        assert found["candidates"] == 0 or name == "same_demonstrations"
    assert health["questions"]["no_positive"] == sum(
        not any(c.correct for c in group) for group in read_groups(Path(health["file"])).values()
    )
    # What was merged or balanced by hand teaches: the file takes the place of the stage.
    cli("candidates", "merge", health["file"], "-o", "all.jsonl")
    brief = ["--set", "training.rce.epochs=1", "--set", "training.grpo.epochs=1", "--balancer", "keep_all", "--json"]
    brief += ["--set", "training.judge.by=candidates"]
    code, out, err = cli("run", "--until", "online", *settings[:-2], *brief, "--imported", "all.jsonl")
    states = {row["stage"]: row["status"] for row in json.loads(out)}
    assert code == 0 and "0 model calls" in err
    assert (states["propose"], states["mine"], states["rce"]) == ("imported", "off", "done")
    inside = Path(next(Path(".leverplus/imported").iterdir())) / "candidates.jsonl"
    assert read_groups(inside) == read_groups(Path("all.jsonl"))
    code, out, err = cli(
        "run", "--until", "online", *settings[:-2], *brief, "--imported", "all.jsonl", "--set", "sampler.k=7"
    )
    assert code == 2 and out == "" and "Pools and candidates are from different runs" in err
    code, out, err = cli("run", "--until", "online", *settings[:-2], *brief, "--imported", "cut.jsonl")
    assert code == 2 and out == "" and "cut.jsonl:2 is not JSON" in err
    whole = Path("all.jsonl").read_text()
    row = json.loads(whole.splitlines()[0])
    for change, says in (
        ({"accuracy": 1 - row["accuracy"]}, f"accuracy is {row['accuracy']} in odd.jsonl and {1 - row['accuracy']} in"),
        ({"demonstrations": row["demonstrations"] * 2}, "shows a demonstration twice"),
        ({"demonstrations": [row["question_id"]]}, "shows the question itself"),
    ):
        Path("odd.jsonl").write_text(whole + json.dumps({**row, **change}))
        code, out, err = cli("run", "--until", "online", *settings[:-2], *brief, "--imported", "odd.jsonl")
        assert code == 2 and out == "" and f"question {row['question_id']}" in err and says in err
    assert len(list(Path(".leverplus/imported").iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("candidates", "inspect", "absent.jsonl"), "no file absent.jsonl"),
        (("candidates", "inspect", "empty.jsonl"), "empty.jsonl holds no candidates"),
        (("candidates", "inspect", "cut.jsonl"), "cut.jsonl:2 is not JSON"),
        (("candidates", "inspect", "."), "holds no candidates"),
        (("candidates", "inspect", "somerun"), "no registry"),
        (("candidates", "inspect", "a.jsonl", "--recipe", "nosuch"), "no recipe 'nosuch'"),
        (("candidates", "balance", "a.jsonl", "-o", "u.jsonl"), "Missing option '--balancer'"),
        (("candidates", "balance", "a.jsonl", "--balancer", "keep_all"), "Missing option '--out'"),
        (("candidates", "balance", "a.jsonl", "--balancer", "keep_al", "-o", "u.jsonl"), "Did you mean 'keep_all'"),
        (
            ("candidates", "balance", "a.jsonl", "--balancer", "top_pn:min_pos=9", "-o", "u.jsonl"),
            "dropped all 2 questions",
        ),
        (
            ("candidates", "balance", "empty.jsonl", "--balancer", "keep_all", "-o", "u.jsonl"),
            "empty.jsonl holds no candidates",
        ),
        (("candidates", "balance", "cut.jsonl", "--balancer", "keep_all", "-o", "u.jsonl"), "cut.jsonl:2 is not JSON"),
        (("candidates", "balance", "nosuch.jsonl", "--balancer", "keep_all", "-o", "u.jsonl"), "no file nosuch.jsonl"),
        (("candidates", "merge", "a.jsonl", "cut.jsonl", "-o", "u.jsonl"), "cut.jsonl:2 is not JSON"),
        (("candidates", "merge", "a.jsonl", "absent.jsonl", "-o", "u.jsonl"), "no file absent.jsonl"),
        (("candidates", "merge", "a.jsonl", "b.jsonl", "-o", "."), "cannot write"),
        (
            ("candidates", "merge", "a.jsonl", "b.jsonl", "other.jsonl", "-o", "u.jsonl"),
            "question 2, demonstrations a: prediction is 'red' in a.jsonl and 'blue' in other.jsonl",
        ),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    before = sorted(p.name for p in tmp_path.iterdir())
    code, out, err = cli(*arguments)
    assert code == 2 and out == "" and says in err and len(err.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == before
