"""Every block of the pages for newcomers runs, in order, in one empty folder, and prints what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import site
import venv
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from leverplus_core import Recipe
from tests.docs.transcripts import masked, page, shape, unaccounted
from tools import transcript

Cli = Callable[..., tuple[int, str, str]]

PAGES = ("tutorial.md", "own-reward.md", "own-data.md", "candidates.md")

DEMO = """
extends: demo
name: demo
threads: 1
dataset: {train: 160, validation: 30}
sampler: {k: 8}
scoring:
  questions: 20
  beam_search: {num_beams: 2, expand_top_k: 2}
  candidates: {questions: 40, shots: [1], num_beams: 1, retrieval: 1}
training: {sft: {epochs: 2}, mrt: {epochs: 2}}
evaluation:
  shots: [1, 2]
  sizes: [20]
  num_beams: 1
  baselines: [random, image_knn, text_image_knn, {name: oracle, num_beams: 1, expand_top_k: 2}]
"""
"""The demo with fewer questions, in a file of the folder: `demo` is read as `demo.yaml`."""

TUTORIAL = {
    r"\b(run|sweep) demo\b": r"\1 demo.yaml",
    r"^extends: demo$": "extends: demo.yaml",
    r"k: 16\b": "k: 6",
    r"questions: 600\b": "questions: 30",
    r"--question \S+": "--question {asked}",
    r"^\$ leverplus view$": "$ leverplus view --port 0",
}
REWARD = {r"\brun demo\b": "run demo.yaml"}
DATA = {r'"train": 120, "validation": 40': '"train": 60, "validation": 12'}


def rehearse(name: str, smaller: Mapping[str, str], cli: Cli) -> None:
    """Run a page with a smaller demo, and compare the shapes of what it prints.

    In this process, so that torch is imported once, as far as the environment stays what it is.
    """
    text, asked, installed = page(name), "", False
    for pattern, small in smaller.items():
        text, count = re.subn(pattern, small, text, flags=re.MULTILINE)
        assert count, f"nothing to make smaller in {name}: {pattern}"
    for block in transcript.blocks(text):
        if isinstance(block, transcript.File):
            block.write()
            continue
        line = block.line.replace("\\\n", " ").replace("{asked}", asked)
        installed |= "pip install" in line
        if installed or block.serves or not line.startswith("leverplus "):
            out = transcript.printed(block)
        else:
            code, out, err = cli(*shlex.split(line)[1:])
            assert code == 0, f"{line}\n{err}"
            out = transcript.kept(out, block.keep)
        assert shape(out) == shape(block.shown), f"{line}\n{out}"
        asked = next(iter(re.findall(r"^demo-validation-\d+", out, re.MULTILINE)), asked)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh virtual environment that sees the packages of this one: `pip install` on a page changes nothing else."""
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    (found,) = folder.glob("lib/*/site-packages")
    outer = [path for path in site.getsitepackages() if Path(path).is_dir()]
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in outer)
    (found / "outer.pth").write_text(lines, encoding="utf-8")
    python = folder / "bin" / "python"
    called = {"leverplus": "-c 'from leverplus_core.cli import main; main()'", "pip": "-m pip", "pytest": "-m pytest"}
    for name, words in called.items():
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {python} {words} "$@"\n', encoding="utf-8")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    for setting, value in {"NO_DEPS": "1", "NO_INDEX": "1", "NO_BUILD_ISOLATION": "0"}.items():
        monkeypatch.setenv(f"PIP_{setting}", value)


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_a_page_is_run(name: str) -> None:
    assert not unaccounted(page(name))


def test_the_tutorial_shows_the_run_that_the_page_of_results_shows() -> None:
    """One recipe, recorded twice, with one seed and with three: its id, and the rows that no seed decides."""
    tutorial, results = page("tutorial.md"), page("results/demo.md")
    assert set(re.findall(r"\b[0-9a-f]{12}\b", tutorial)) == {Recipe.load("demo").fingerprint()[:12]}
    for name in ("random", "text_image_knn", "oracle"):
        rows = [" ".join(row.split()) for row in re.findall(rf"^{name} .*", results, re.MULTILINE)]
        shown = [" ".join(row.split()) for row in re.findall(rf"^{name}  .*", tutorial, re.MULTILINE)]
        assert len(shown) > 1 and shown[:2] == rows[:2], name


@pytest.mark.timeout(600)
def test_the_tutorial_and_an_own_reward_work_on_a_smaller_demo(cli: Cli, environment: None) -> None:
    Path("demo.yaml").write_text(DEMO, encoding="utf-8")
    rehearse("tutorial.md", TUTORIAL, cli)
    rehearse("own-reward.md", REWARD, cli)


@pytest.mark.timeout(600)
def test_own_data_work_with_fewer_pictures(cli: Cli, environment: None) -> None:
    rehearse("own-data.md", DATA, cli)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("names", [("tutorial.md", "own-reward.md"), ("own-data.md",), ("candidates.md",)])
def test_pages_run_as_they_stand_and_print_what_they_show(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: None
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in (block for name in names for block in transcript.blocks(page(name))):
        if isinstance(block, transcript.File):
            block.write()
        else:
            out = transcript.printed(block)
            assert [masked(line) for line in out.splitlines()] == [masked(line) for line in block.shown.splitlines()]
