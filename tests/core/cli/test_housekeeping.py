"""`leverplus runs`, `cache` and `registry copy` as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from leverplus_core.registry.registry import Registry, RunRecord

Cli = Callable[..., tuple[int, str, str]]
RUN = RunRecord("aaa111", "demo", "f", "demo_world", "qwen", 0, {"seed": 0}, dataset_fingerprint="world")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Two runs that share a stage, and the folders of their stages."""
    url = f"sqlite:///{tmp_path / 'leverplus.db'}"
    monkeypatch.setenv("LEVERPLUS_REGISTRY", url)
    registry = Registry(url)
    for run, stages in ((RUN, ("shared", "own")), (replace(RUN, id="bbb222", name="other"), ("shared",))):
        registry.begin_run(run)
        for stage in stages:
            folder = tmp_path / ".leverplus" / "stages" / f"{stage}-0f"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "data").write_bytes(b"x" * 2000)
            registry.record_stage(run.id, stage, "0f", "done", 1.0, str(folder), reused=False)
        registry.finish_run(run.id, "done")
    return registry


def test_runs_are_listed_renamed_tagged_and_noted(cli: Cli, store: Registry) -> None:
    code, out, err = cli("runs")
    assert (code, err) == (0, "") and [line.split()[:3] for line in out.splitlines()] == [
        ["id", "name", "status"], ["bbb222", "other", "done"], ["aaa111", "demo", "done"],
    ]  # fmt: skip
    assert "tags" not in out, "a column without anything in it says nothing"
    assert cli("runs", "rename", "aaa", "best")[0] == 0
    assert cli("runs", "tag", "best", "paper", "good")[0] == 0
    assert "good" not in cli("runs", "tag", "best", "--remove", "good")[1]
    assert cli("runs", "note", "best", "for table 2")[0] == 0
    [row] = json.loads(cli("runs", "--tag", "paper", "--json")[1])
    assert (row["id"], row["name"], row["tags"], row["note"]) == ("aaa111", "best", ["paper"], "for table 2")
    assert "for table 2" in cli("runs")[1]
    assert cli("runs", "rename", "best", "other")[2] == (
        "leverplus: the registry holds a run named 'other' already. Choose another name.\n"
    )


def test_a_run_is_deleted_with_the_folders_that_only_it_has(cli: Cli, store: Registry, tmp_path: Path) -> None:
    stages = tmp_path / ".leverplus" / "stages"
    code, out, err = cli("runs", "delete", "demo")
    assert (code, out) == (2, "") and "Delete 1 run and 1 folder of stages (2 kB)? Nothing was changed" in err
    assert len(store.runs()) == 2 and (stages / "own-0f").is_dir()
    code, out, err = cli("runs", "delete", "demo", "--yes")
    assert (code, out) == (0, "") and "deleted 1 run and 1 folder (2 kB)" in err
    assert [run["id"] for run in store.runs()] == ["bbb222"]
    assert not (stages / "own-0f").exists() and (stages / "shared-0f").is_dir()


def test_the_question_is_answered_on_the_terminal(cli: Cli, store: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        answer = "n\n"

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return self.answer

    monkeypatch.setattr("sys.stdin", Terminal())
    assert cli("runs", "delete", "demo")[2].endswith("leverplus: nothing was changed.\n") and len(store.runs()) == 2
    Terminal.answer = "y\n"
    assert cli("runs", "delete", "demo")[0] == 0 and len(store.runs()) == 1


def test_a_run_that_runs_is_refused_before_anything_is_removed(cli: Cli, store: Registry, tmp_path: Path) -> None:
    store.begin_run(RUN)
    code, _, err = cli("runs", "delete", "other", "demo", "--yes")
    assert code == 2 and err == (
        "leverplus: run aaa111 (demo) is running. Stop it first, or wait for its end.\n"
    ) and len(store.runs()) == 2  # fmt: skip
    assert (tmp_path / ".leverplus" / "stages" / "own-0f").is_dir()


def test_the_cache_is_shown_and_pruned(cli: Cli, store: Registry, tmp_path: Path) -> None:
    code, out, err = cli("cache")
    assert code == 0 and [line.split()[:4] for line in out.splitlines()][1:] == [
        ["own", "1", "2", "kB"], ["shared", "1", "2", "kB"],
    ]  # fmt: skip
    assert err == "4 kB in .leverplus\n"
    assert "Give --older-than DAYS, --run RUN, or both" in cli("cache", "prune")[2]
    assert json.loads(cli("cache", "prune", "--older-than", "1", "--json")[1]) == {"removed": 0, "bytes": 0}
    assert json.loads(cli("cache", "prune", "--run", "other", "--yes", "--json")[1])["removed"] == 0
    assert json.loads(cli("cache", "prune", "--run", "demo", "--yes", "--json")[1]) == {"removed": 1, "bytes": 2000}
    assert cli("cache", "prune", "--older-than", "0", "--yes")[2].endswith("removed 2 kB\n")
    assert len(store.runs()) == 2 and not list((tmp_path / ".leverplus" / "stages").iterdir())


def test_a_registry_is_copied(cli: Cli, store: Registry, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path / 'copy.db'}"
    code, _, err = cli("registry", "copy", store.url, target)
    assert code == 0 and err == "copied 5 rows; each is in the copy as it was\n"
    assert Registry(target).runs() == store.runs()
    assert "is not empty" in cli("registry", "copy", store.url, target)[2]
    assert "no registry at" in cli("registry", "copy", f"sqlite:///{tmp_path / 'absent.db'}", target)[2]


def test_no_color_is_respected(cli: Cli, store: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in cli("runs")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    for command in (["runs"], ["cache"], ["leaderboard"], ["recipes"]):
        _, out, err = cli(*command)
        assert "\x1b[3" not in out + err and "\x1b[9" not in out + err, "no colors; bold and dim are none"
