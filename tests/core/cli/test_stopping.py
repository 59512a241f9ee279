"""Ctrl-C, or a friendly kill, ends a run with one line that says what is kept; the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leverplus_core.registry.registry import Registry

TINY_PARTS = Path(__file__).parents[1] / "pipeline" / "tiny_parts.py"
SETTINGS = (
    "dataset=tiny", "model=tiny", "encoder=tiny", "sampler={name: random, k: 5}", "threads=1", "selector.width=16",
    "scoring.questions=20", "scoring.beam_search={num_beams: 2, shots: 1}", "training.sft.epochs=1",
    "evaluation.shots=[1, 2]",
)  # fmt: skip


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_its_user_stops_says_in_one_line_what_is_kept(tmp_path: Path, with_signal: signal.Signals) -> None:
    program = "from leverplus_core.cli import main; main()"
    words = [sys.executable, "-c", program, "run", "demo", "--plugin", str(TINY_PARTS), "--until", "sft"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]

    def run(**environment: str) -> tuple[int, list[str]]:
        done = subprocess.run(words, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True)
        return done.returncode, done.stderr.splitlines()

    code, lines = run(TINY_KILL_AT="10", TINY_KILL_WITH=str(int(with_signal)))
    with Registry(f"sqlite:///{tmp_path}/leverplus.db") as registry:
        [row] = registry.runs()
        stages = {stage["name"]: stage["status"] for stage in registry.stages(row["id"])}
        assert row["status"] == "stopped" and stages == {"encode": "done", "pool": "done", "beam_search": "stopped"}
        assert (code, lines[-1]) == (
            130,
            f"leverplus: stopped in stage 'beam_search' of run {row['id']}: encode, pool and every finished batch of "
            "the model's answers are kept in .leverplus; the same command goes on from there.",
        )
        assert sum("stopped" in line for line in lines) == 1 and "Traceback" not in "".join(lines)
        assert run()[0] == 0
        [row] = registry.runs()
        assert row["status"] == "partial" and registry.stages(row["id"])[2]["status"] == "done"
