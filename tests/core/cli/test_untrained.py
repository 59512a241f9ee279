"""`run` where nothing is left to learn from: baselines are shown, and the exit code says that a method is lacking."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

TINY_PARTS = Path(__file__).parents[1] / "pipeline" / "tiny_parts.py"
SETTINGS = [
    "dataset=tiny", "model=tiny", "encoder=tiny", "sampler={name: random, k: 5}", "threads=1", "selector.width=16",
    "scoring.questions=10", "scoring.beam_search={num_beams: 2, shots: 1}", "training.sft.epochs=1",
    "scoring.candidates={shots: [1], num_beams: 1, samples: {}, retrieval: 1, random: 1, questions: null}",
    "training.mrt.epochs=1", "balancer={name: keep_all, min_pos: 99}", "evaluation.shots=[1]", "evaluation.sizes=[5]",
    "evaluation.ablations=[]", "evaluation.baselines=[zero_shot, random]",
]  # fmt: skip


def test_baselines_are_shown_and_the_exit_code_is_one(cli: Callable[..., tuple[int, str, str]]) -> None:
    command = ["run", "--plugin", str(TINY_PARTS), *(word for text in SETTINGS for word in ("--set", text))]
    code, out, err = cli(*command)
    assert code == 1 and "zero_shot" in out and "random" in out and "not trained: mrt" in " ".join(out.split())
    [warning] = [line for line in err.splitlines() if line.startswith("leverplus: warning: ")]
    assert "not trained: mrt: the balancer dropped all 10 questions (fewer than 99 positives" in warning
    assert "scoring.correct_threshold" in warning and "Traceback" not in err
    code, out, _ = cli(*command, "--json")
    assert code == 1 and json.loads(out)["headline"]["untrained"][0]["method"] == "mrt"
