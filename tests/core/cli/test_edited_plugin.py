"""The worst of stale results: a plugin's code is edited, the command is repeated, and the old numbers come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leverplus_core.registry.registry import Registry

Cli = Callable[..., tuple[int, str, str]]

REWARD = '''
from leverplus_core import Reward, hookimpl


class FormulaReward(Reward):
    """The accuracy, or what an edit makes of it."""

    def compute(self, group):
        return [FORMULA for c in group]


@hookimpl
def leverplus_rewards():
    return {"formula": __name__ + ":FormulaReward"}
'''
SETTINGS = [
    word
    for text in (
        "dataset.train=40", "dataset.validation=20", "sampler.k=6", "scoring.questions=16", "threads=1",
        "scoring.beam_search={num_beams: 1, expand_top_k: 2}", "training.sft.epochs=1", "training.rce.epochs=2",
        "scoring.candidates={shots: [1], num_beams: 1, samples: {}, retrieval: 2, random: 1}", "selector.width=32",
        "balancer={name: keep_all}", "reward=formula",
    )
    for word in ("--set", text)
]  # fmt: skip


@pytest.fixture(params=["file", "installed"])
def write(
    request: pytest.FixtureRequest, tmp_path: Path, install: Callable[..., str], restart: Callable[[], None]
) -> Callable[[str], list[str]]:
    """Write the plugin with a formula, as a new process would find it; returns the options that name it."""

    def put(formula: str) -> list[str]:
        restart()
        code = REWARD.replace("FORMULA", formula)
        if request.param == "installed":
            install("acme-formula", code)
            return []
        (tmp_path / "acme_formula_file.py").write_text(code, encoding="utf-8")
        return ["--plugin", "acme_formula_file.py"]

    return put


def test_an_edited_formula_is_computed_again_and_what_does_not_use_it_is_reused(
    cli: Cli, write: Callable[[str], list[str]], tmp_path: Path
) -> None:
    def run(*more: str) -> tuple[dict[str, str], list[object]]:
        code, out, err = cli("run", "--until", "rce", *SETTINGS, "--json", *more)
        assert code == 0, err
        states = {row["stage"]: row["status"] for row in json.loads(out)}
        curve = "SELECT * FROM curves WHERE stage = 'rce' ORDER BY step, metric"
        columns, rows = Registry(f"sqlite:///{tmp_path}/leverplus.db").sql(curve)
        return {stage: states[stage] for stage in ("propose", "balance", "rce")}, [columns, *rows]

    states, first = run(*write("c.accuracy"))
    assert states == {"propose": "done", "balance": "done", "rce": "done"}
    states, again = run(*write("c.accuracy"))
    assert (set(states.values()), again) == ({"reused"}, first)
    states, second = run(*write("-c.accuracy"))
    assert states == {"propose": "reused", "balance": "reused", "rce": "done"} and second != first
    states, third = run(*write("c.accuracy"))
    assert (set(states.values()), third) == ({"reused"}, first), "the first formula's result is still there"
    states, _ = run(*write("c.accuracy"), "--redo", "balance")
    assert states == {"propose": "reused", "balance": "done", "rce": "done"}
