"""The worst of stale results: the code of a part changes, the command is repeated, and the old figures come back."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leverplus_core.pipeline.audit import audit
from leverplus_core.pipeline.run import RunResult
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.registry.registry import Registry

Finished = tuple[Any, RunResult]
Tiny = Callable[..., Recipe]
LEARNED = {"rce", "grpo", "evaluate"}
TINY_PARTS = Path(__file__).parent / "tiny_parts.py"
CODE = '''
from leverplus_core import Reward, hookimpl


class FormulaReward(Reward):
    """The log-probability, or what an edit makes of it."""

    def compute(self, group):
        return [FORMULA for c in group]


@hookimpl
def leverplus_rewards():
    return {"formula": __name__ + ":FormulaReward"}
'''
Write = Callable[..., Catalog]


@pytest.fixture(params=["file", "editable install"])
def write(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new_process: Callable[[], None]
) -> Write:
    """Write the reward with a formula and a version, and load it as a new process would."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def put(formula: str, version: str = "1.0") -> Catalog:
        new_process()
        folder = tmp_path / "site"
        info = folder / "acme_formula-1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        code = textwrap.dedent(CODE).replace("FORMULA", formula)
        if request.param == "file":
            plugin = tmp_path / "formula_file.py"
            plugin.write_text(code, encoding="utf-8")
            return Catalog.load([TINY_PARTS, plugin], disabled="")
        (folder / "acme_formula.py").write_text(code, encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-formula\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("[leverplus]\nparts = acme_formula\n")
        return Catalog.load([TINY_PARTS], disabled="")

    return put


def _done(result: RunResult) -> set[str]:
    return {stage for stage, state in result.stages.items() if state == "done"}


def test_a_reward_turned_upside_down_gives_new_results(tiny: Tiny, finished: Finished, write: Write) -> None:
    world, _ = finished
    recipe = tiny(reward="formula")
    first = replace(world, catalog=write("c.logprob")).run(recipe)
    # The default reward reads no probability: the candidates of the finished run have none, and are measured again.
    assert _done(first) == LEARNED | {"propose", "balance"}
    before = world.results(first.run_id)
    same = replace(world, catalog=write("c.logprob")).run(recipe)
    assert _done(same) == set() and same.calls == 0 and world.results(first.run_id) == before
    turned = replace(world, catalog=write("-c.logprob")).run(recipe)
    assert _done(turned) == LEARNED and turned.run_id == first.run_id
    after = world.results(first.run_id)
    curves, others = ([row for row in found["curves"] if row[0] == "rce"] for found in (before, after))
    assert len(curves) == len(others) > 0 and curves != others
    chosen, instead = ([row for row in found["predictions"] if row[0] in ("rce", "grpo")] for found in (before, after))
    assert len(chosen) == len(instead) > 0 and chosen != instead
    baselines, unchanged = (
        [row for row in found["predictions"] if row[0] in ("random", "oracle", "sft")] for found in (before, after)
    )
    assert baselines == unchanged
    back = replace(world, catalog=write("c.logprob")).run(recipe)
    assert _done(back) == set() and world.results(first.run_id) == before, "the first result is still there"


def test_an_audit_reports_the_parts_whose_code_is_no_longer_what_is_installed(
    tiny: Tiny, finished: Finished, write: Write
) -> None:
    world, _ = finished
    result = replace(world, catalog=write("c.logprob")).run(tiny(reward="formula"))
    registry = Registry(world.url)

    def found(catalog: Catalog) -> dict[str, Any]:
        return audit(registry, result.run_id, 6, world.work, catalog)

    sound = found(write("c.logprob"))
    assert (sound["changed_code"], sound["differences"], sound["asked_again"]) == ([], [], 6)
    [changed] = found(write("-c.logprob"))["changed_code"]
    assert (changed["kind"], changed["name"]) == ("reward", "formula") and changed["then"] != changed["now"]
    assert found(write("c.logprob"))["changed_code"] == []


@pytest.mark.parametrize("write", ["editable install"], indirect=True)
def test_a_raised_version_of_the_same_source_gives_new_results_and_is_reported(
    tiny: Tiny, finished: Finished, write: Write
) -> None:
    """What a package computes may be in files that are no Python."""
    world, _ = finished
    recipe = tiny(reward="formula")
    first = replace(world, catalog=write("c.logprob", "1.0")).run(recipe)
    raised = write("c.logprob", "1.1")
    [changed] = audit(Registry(world.url), first.run_id, 0, world.work, raised)["changed_code"]
    assert changed["then"].startswith("acme-formula 1.0 ") and changed["now"].startswith("acme-formula 1.1 ")
    assert _done(replace(world, catalog=raised).run(recipe)) == LEARNED
    assert audit(Registry(world.url), first.run_id, 0, world.work, raised)["changed_code"] == []


def test_cells_of_other_code_are_removed_from_the_registry_wherever_the_run_ends(
    tiny: Tiny, finished: Finished, write: Write
) -> None:
    world, _ = finished
    recipe, first = tiny(reward="formula"), write("c.logprob")
    run_id = replace(world, catalog=first).run(recipe).run_id
    before = world.results(run_id)
    replace(world, catalog=write("-c.logprob")).run(recipe, until="pool")
    assert not world.results(run_id)["cells"] and not world.results(run_id)["predictions"]
    again = replace(world, catalog=write("c.logprob")).run(recipe)
    assert _done(again) == set() and again.calls == 0 and world.results(run_id) == before
