"""The one command for a GPU: its steps run one after the other, whatever becomes of one; here in a small form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.on_gpu import ROOT, run, steps


def test_a_step_that_fails_or_hangs_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("table", ["-c", "print('a figure')"], 60)
    assert not run("probe", ["-c", "raise SystemExit(3)"], 60)
    assert not run("tests", ["-c", "import time; time.sleep(60)"], 0.5)
    said = capfd.readouterr().out.splitlines()
    assert said[0] == "== table: python -c 'print('\"'\"'a figure'\"'\"')'"
    assert said[1] == "a figure" and said[2].startswith("== table: done after ")
    assert said[4].startswith("== probe: failed (3) after ")
    assert said[6].startswith("== tests: failed (ended for time) after ")


def test_the_table_comes_first_and_all_fit_into_a_loan() -> None:
    for quick, seconds in ((True, 420), (False, 600)):
        planned = steps("cuda", quick, Path("p.md"))
        assert [title for title, _, _ in planned] == ["table", "probe", "tests"]
        assert sum(limit for _, _, limit in planned) <= seconds


@pytest.mark.slow
def test_in_a_small_form_it_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, "tools/on_gpu.py", "--device", "cpu", "--quick", "--output", str(tmp_path / "page.md")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    for title in ("table", "probe"):
        assert f"== {title}: done after " in done.stdout, done.stdout + done.stderr
    assert "| full |" in (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "skipped" in done.stdout  # the tests, without a GPU
