"""Every block of the tutorial runs, in order, in one empty folder, and prints what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.pages import masked, page, shape, unaccounted
from tools import transcript

Cli = Callable[..., tuple[int, str, str]]

SMALL = """
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
evaluation: {shots: [1, 2], sizes: [20], num_beams: 1}
"""
"""The demo with fewer questions, in a file of the folder: `demo` is read as `demo.yaml`."""

SMALLER = (
    (r"\b(run|sweep) demo\b", r"\1 demo.yaml"),
    (r"^extends: demo$", "extends: demo.yaml"),
    (r"k: 16\b", "k: 6"),
    (r"questions: 600\b", "questions: 30"),
    (r"--question \S+", "--question {asked}"),
)


def test_every_block_of_the_tutorial_is_run() -> None:
    assert not unaccounted(page("tutorial.md"))


def test_the_tutorial_works_on_a_smaller_demo_and_prints_tables_of_the_same_shape(cli: Cli) -> None:
    """In this process: the command's entry point is called, so that torch is imported once."""
    Path("demo.yaml").write_text(SMALL, encoding="utf-8")
    text, asked = page("tutorial.md"), ""
    for pattern, small in SMALLER:
        text, count = re.subn(pattern, small, text, flags=re.MULTILINE)
        assert count, f"nothing to make smaller: {pattern}"
    for block in transcript.blocks(text):
        if isinstance(block, transcript.File):
            block.write()
            continue
        line = block.line.replace("\\\n", " ").format(asked=asked)
        program, *words = shlex.split(line)
        assert program == "leverplus"
        if block.serves:
            continue
        code, out, err = cli(*words)
        assert code == 0, f"{line}\n{err}"
        assert shape(transcript.kept(out, block.keep)) == shape(block.shown), f"{line}\n{out}"
        asked = next(iter(re.findall(r"^demo-validation-\d+", out, re.MULTILINE)), asked)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_runs_as_it_stands_and_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for block in transcript.blocks(page("tutorial.md")):
        if isinstance(block, transcript.File):
            block.write()
        else:
            out = transcript.printed(block)
            assert [masked(line) for line in out.splitlines()] == [masked(line) for line in block.shown.splitlines()]
