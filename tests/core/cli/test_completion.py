"""What Tab offers, and that it costs no import of torch."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from leverplus_core.cli import completion
from leverplus_core.registry.registry import Registry, RunRecord

PROBE = """
import sys
from leverplus_core.cli import main
try:
    main()
finally:
    assert not {"torch", "transformers"} & set(sys.modules), sorted(sys.modules)
"""


def _offered(find: Any, typed: str, **line: Any) -> list[str]:
    """The words that are offered after `typed`; `line` are the options that the line has already."""
    return [word for word, _ in find(SimpleNamespace(params=line), typed)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEVERPLUS_REGISTRY", raising=False)
    return tmp_path


def test_recipes_are_bundled_ones_and_files(folder: Path) -> None:
    (folder / "demo-mine.yaml").write_text("extends: demo\n")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "a.yaml").write_text("extends: demo\n")
    assert _offered(completion.recipes, "demo-m") == ["demo-mine.yaml", "demo-mined"]
    assert _offered(completion.recipes, "deep/") == ["deep/a.yaml", "deep/er/"]
    assert _offered(completion.recipes, "no/such/") == []
    for name in ("demo-a; echo.yaml", "demo-*.yaml", "demo-a\nb.yaml", "demo-$(id).yaml"):
        (folder / name).touch()
    assert _offered(completion.recipes, "demo-m") == ["demo-mine.yaml", "demo-mined"]
    assert not any(
        word.startswith(("demo-a;", "demo-a\n", "demo-*", "demo-$")) for word in _offered(completion.recipes, "demo-")
    )


def test_runs_are_named_by_name_and_id_and_only_by_words_that_no_shell_takes_apart(folder: Path) -> None:
    assert _offered(completion.runs, "") == [], "without a registry"
    assert not (folder / "leverplus.db").exists()
    for registry, name in (("leverplus", "demo"), ("other", "mine")):
        with Registry(f"sqlite:///{registry}.db") as store:
            store.begin_run(RunRecord("aaa111", name, "f", "demo_world", "qwen", 0))
            store.begin_run(RunRecord("bbb222", "arms (seed=1)", "g", "demo_world", "qwen", 1))
    assert sorted(_offered(completion.runs, "")) == ["aaa111", "bbb222", "demo", "latest"]
    assert _offered(completion.runs, "b") == ["bbb222"]
    assert _offered(completion.runs, "m", registry="sqlite:///other.db") == ["mine"]
    assert dict(completion.runs(SimpleNamespace(params={}), "aaa"))["aaa111"] == "demo, running"  # type: ignore[arg-type]


def test_tab_changes_no_registry(folder: Path) -> None:
    """One of an older version is brought up to date by commands, and offers nothing until then."""
    Registry("sqlite:///leverplus.db").close()
    with closing(sqlite3.connect("leverplus.db")) as connection, connection:
        connection.execute("UPDATE schema_version SET version = version - 1")
        (before,) = connection.execute("SELECT version FROM schema_version").fetchone()
    assert _offered(completion.runs, "") == []
    with closing(sqlite3.connect("leverplus.db")) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchone() == (before,)


def test_settings_are_those_of_the_recipe_and_its_parts(folder: Path) -> None:
    (folder / "mine.yaml").write_text("extends: demo\nsampler: {name: random, k: 8}\ntraining: {rce: {epochs: 3}}\n")
    assert _offered(completion.settings, "training.rce.ep") == ["training.rce.epochs="]
    assert "sampler.text=" in _offered(completion.settings, "sampler.", recipe="demo")
    assert "sampler.text=" not in _offered(completion.settings, "sampler.", recipe="mine.yaml")
    assert _offered(completion.settings, "evaluation.sp") == ["evaluation.split="]
    assert _offered(completion.settings, "", recipe="no such recipe") == []


def test_parts_stages_and_trackers_are_offered_by_name() -> None:
    assert _offered(completion.parts("sampler"), "r") == ["rand", "random"]
    assert "two_tower" in _offered(completion.any_part, "tw")
    assert _offered(completion.stages, "") == [
        "encode", "pool", "beam_search", "sft", "propose", "mine", "balance", "rce", "grpo", "mrt", "online",
        "choose_baseline", "evaluate",
    ]  # fmt: skip
    assert _offered(completion.trackers, "") == ["mlflow", "trackio", "wandb"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("leverplus run demo-r", ["demo-retriever", "demo-rl", "demo-rl-sft"]),
        ("leverplus run --set training.mrt.ep", ["training.mrt.epochs="]),
        ("leverplus run --balancer top", ["top_pn"]),
    ],
)
def test_bash_is_offered_them_without_torch(folder: Path, line: str, offered: list[str]) -> None:
    words = {"_LEVERPLUS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **words}, capture_output=True, text=True, check=False)
    assert (sorted(done.stdout.split()), done.stderr) == (offered, "")
