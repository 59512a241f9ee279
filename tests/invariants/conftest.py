"""One small run on the demo model that nothing disturbed, for tests that compare with it or continue it."""

from __future__ import annotations

import io
import shutil
import signal
import sqlite3
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from leverplus_core.cli import main
from leverplus_core.pipeline.run import RunResult, run
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry

SMALL = [
    "dataset.train=40", "dataset.validation=24", "sampler.k=6", "scoring.questions=20", "threads=1",
    "scoring.beam_search={num_beams: 2, shots: 2, expand_top_k: 3}", "balancer={name: keep_all}",
    "scoring.candidates.num_beams=2", "scoring.candidates.retrieval=2", "scoring.candidates.questions=null",
    "selector.width=32", "training.sft.epochs=2", "training.rce.epochs=2", "training.grpo.epochs=1",
    "training.mrt.epochs=0", "evaluation.shots=[1, 2]", "evaluation.sizes=[10, 20]", "evaluation.ablations=[]",
    "evaluation.baselines=[zero_shot, random, text_knn, image_knn, {name: oracle, num_beams: 2, expand_top_k: 3}]",
]  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """A folder with the registry `r.db` and the workspace `work` of the small run, and what that run returned."""

    folder: Path
    result: RunResult

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/r.db"

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def stage(self, name: str) -> Path:
        """The folder of a stage of the small run; other runs may have left theirs beside it."""
        with Registry(self.url) as registry:
            return next(Path(row["path"]) for row in registry.stages(self.result.run_id) if row["name"] == name)

    def other(self, name: str) -> str:
        """The URL of another registry beside it, for another test's runs."""
        return f"sqlite:///{self.folder}/{name}.db"

    def copy(self, folder: Path) -> Finished:
        """The same in another folder; databases with what stands in their write-ahead logs."""
        shutil.copytree(self.work, folder / "work", ignore=shutil.ignore_patterns("*.sqlite*"))
        for file in (self.folder / "r.db", self.work / "responses.sqlite"):
            with sqlite3.connect(file) as db:
                db.execute("VACUUM INTO ?", (str(folder / file.relative_to(self.folder)),))
        return Finished(folder, self.result)


@pytest.fixture(scope="session")
def small_settings() -> list[str]:
    return SMALL


@pytest.fixture(scope="session")
def small() -> Callable[..., Recipe]:
    """The small recipe, with more overrides."""
    return lambda *more: Recipe.load("demo", [*SMALL, *more])


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The small run. Tests write runs of other recipes into its workspace, and into registries of their own."""
    folder = tmp_path_factory.mktemp("run")
    result = run(Recipe.load("demo", SMALL), f"sqlite:///{folder}/r.db", folder / "work")
    assert result.calls > 0 and set(result.stages.values()) == {"done", "off"}
    return Finished(folder, result)


@dataclass(frozen=True)
class Printed:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Printed]:
    """A command in an empty folder, called in this process; environment variables by keyword."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments: str, **environment: str) -> Printed:
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch, warnings.catch_warnings(), redirect_stdout(out), redirect_stderr(err):
            warnings.simplefilter("default")  # as outside of the tests, where a warning is a line
            patch.setattr(sys, "argv", ["leverplus", *arguments])
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                with pytest.raises(SystemExit) as end:
                    main()
            finally:
                signal.signal(signal.SIGTERM, handler)
        return Printed(int(end.value.code or 0), out.getvalue(), err.getvalue())

    return call
