"""Commands that look things up start at once: none imports torch, transformers or another heavy library."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from leverplus_core.records import Prediction
from leverplus_core.registry.registry import Registry, RunRecord

TORCH = {"torch", "transformers", "tokenizers"}
HEAVY = TORCH | {"scipy", "statsmodels", "pandas", "matplotlib"}
PROBE = """
import sys
from leverplus_core.cli import main
try:
    main()
except SystemExit as stopped:
    assert not stopped.code, stopped.code
print("IMPORTED", *sorted(set(sys.modules)), file=sys.stderr)
"""
SMALL = ("--set", "dataset.train=20", "--set", "dataset.validation=10", "--set", "sampler.k=8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry of one run with two methods."""
    folder = tmp_path_factory.mktemp("started")
    registry = Registry(f"sqlite:///{folder}/leverplus.db")
    registry.begin_run(RunRecord("aaa111", "demo", "f", "demo_world", "qwen", 0, dataset_fingerprint="world"))
    for method, correct in (("random", 10), ("rce", 14)):
        rows = [(i, Prediction(method, 1, f"q{i}", f"p{i}", (), "", "", float(i % 20 < correct))) for i in range(20)]
        registry.record_cell_predictions("aaa111", method, 1, rows, [20])
    registry.finish_run("aaa111", "done")
    return folder


@pytest.mark.parametrize(
    ("command", "forbidden"),
    [
        (["--help"], HEAVY | {"numpy", "pydantic", "rich", "sqlalchemy"}),
        (["--version"], HEAVY | {"numpy", "pydantic", "rich", "sqlalchemy"}),
        (["run", "--help"], HEAVY | {"numpy", "sqlalchemy"}),
        (["plugins"], HEAVY),
        (["plugins", "show", "mixed"], TORCH),
        (["plugins", "new", "reward", "mine"], TORCH),
        (["recipes"], HEAVY),
        (["validate", *SMALL], TORCH),
        (["plan", *SMALL], TORCH),
        (["leaderboard"], HEAVY),
        (["compare", "latest:rce", "latest:random"], TORCH),
        (["sql", "SELECT method, accuracy FROM leaderboard"], HEAVY),
    ],
    ids=lambda value: value[0] + ("-help" if value[-1] == "--help" else "") if isinstance(value, list) else "",
)
def test_a_command_imports_nothing_that_it_does_not_need(folder: Path, command: list[str], forbidden: set[str]) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LEVERPLUS")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *command],
        cwd=folder,
        env={**clean, "LEVERPLUS_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported = done.stderr.splitlines()[-1].split()
    assert imported[0] == "IMPORTED" and not forbidden & set(imported)
