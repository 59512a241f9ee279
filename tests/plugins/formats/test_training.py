"""A selector is trained from an rl-data file alone: the report's run is one command."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "measure_import.py"
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """Forty questions with pools of 64."""
    spec = importlib.util.spec_from_file_location("measure_import", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    entries = module.entries(seed=0)
    return dict(next(entries) for _ in range(40))


def _train(cli: Cli, data: dict[str, Any]) -> dict[str, str]:
    Path("rl_data.json").write_text(json.dumps(data), encoding="utf-8")
    brief = ("--set", "training.rce.epochs=1", "--set", "training.grpo.epochs=1", "--json")
    options = ("--until", "grpo", "--imported", "rl_data.json", "--reward", "separated")
    code, out, err = cli("run", "demo", *options, *brief)
    assert code == 0, err
    assert ": 0 model calls" in err
    return {row["stage"]: row["status"] for row in json.loads(out)}


def test_a_file_with_pools(whole: dict[str, Any], cli: Cli) -> None:
    states = _train(cli, whole)
    assert states["propose"] == states["pool"] == "imported"
    assert states["rce"] == states["grpo"] == "done"


def test_a_file_whose_pools_are_of_several_sizes(whole: dict[str, Any], cli: Cli) -> None:
    """The question itself in its pool is taken out; where there are no pools, they are what the candidates show."""
    own = {key: {**entry} for key, entry in whole.items()}
    for key in list(own)[:10]:
        entry = own[key]
        taken = {p for candidate in entry["pointer_candidates"] for p in candidate["pointer"]}
        place = next(i for i in range(64) if i not in taken)
        entry["candidate_pool_ids"] = [int(key) if i == place else n for i, n in enumerate(entry["candidate_pool_ids"])]
    for key in list(own)[10:20]:
        entry = own[key]
        del entry["candidate_pool_ids"]
        entry["pointer_candidates"] = [{**c, "pointer": c["pointer_global"]} for c in entry["pointer_candidates"]]
    assert _train(cli, own)["rce"] == "done"
