"""Verbs that run a recipe, whole or up to a stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import (
    DEFAULT_REGISTRY,
    DEFAULT_WORK,
    BalancerOpt,
    DatasetOpt,
    EncoderOpt,
    ImportedOpt,
    JsonOpt,
    ModelOpt,
    PluginOpt,
    RecipeArg,
    RegistryOpt,
    RewardOpt,
    SamplerOpt,
    SelectorOpt,
    SetOpt,
    WorkOpt,
    load_catalog,
    load_recipe,
)
from leverplus_core.errors import RecipeError

if TYPE_CHECKING:
    from leverplus_core.recipes.recipe import Recipe


def register(app: typer.Typer) -> None:
    app.command()(run)
    _stage_verb(app, "encode", "encode", "Run up to the features of all images and texts.")
    _stage_verb(app, "pool", "pool", "Run up to each question's frozen pool.")
    _stage_verb(app, "score", "candidates", "Run up to the measured candidates: InfoScore beams, SFT, proposals.")
    _stage_verb(app, "mine", "mine", "Run up to more positives for questions with few, and print what they cost.")
    app.command()(balance)
    _stage_verb(app, "train", "online", "Run up to the trained selectors; with --imported, no VLM is asked.")
    _stage_verb(app, "evaluate", "evaluate", "Run up to the filled grid, and print its leaderboard.")
    app.command()(check)


def run(
    recipe: RecipeArg = "demo",
    overrides: SetOpt = None,
    dataset: DatasetOpt = None,
    model: ModelOpt = None,
    encoder: EncoderOpt = None,
    sampler: SamplerOpt = None,
    selector: SelectorOpt = None,
    balancer: BalancerOpt = None,
    reward: RewardOpt = None,
    imported: ImportedOpt = None,
    name: Annotated[str | None, typer.Option("--name", help="Name the run.")] = None,
    plugin: PluginOpt = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    work: WorkOpt = DEFAULT_WORK,
    json: JsonOpt = False,
) -> None:
    """Run the whole job, or go on where it was stopped, and print its leaderboard."""
    parts = {
        "dataset": dataset,
        "model": model,
        "encoder": encoder,
        "sampler": sampler,
        "selector": selector,
        "balancer": balancer,
        "reward": reward,
    }
    _execute(load_recipe(recipe, overrides, parts, name, imported), "evaluate", plugin, registry, work, json)


def _stage_verb(app: typer.Typer, verb: str, until: str, help_text: str) -> None:
    def command(
        recipe: RecipeArg = "demo",
        overrides: SetOpt = None,
        selector: SelectorOpt = None,
        balancer: BalancerOpt = None,
        reward: RewardOpt = None,
        imported: ImportedOpt = None,
        plugin: PluginOpt = None,
        registry: RegistryOpt = DEFAULT_REGISTRY,
        work: WorkOpt = DEFAULT_WORK,
        json: JsonOpt = False,
    ) -> None:
        parts = {"selector": selector, "balancer": balancer, "reward": reward}
        _execute(load_recipe(recipe, overrides, parts, None, imported), until, plugin, registry, work, json)

    app.command(verb, help=help_text)(command)


def balance(
    recipe: Annotated[
        str, typer.Argument(metavar="[RECIPE|FILE.jsonl]", help="A recipe, or a candidates file made by hand.")
    ] = "demo",
    overrides: SetOpt = None,
    selector: SelectorOpt = None,
    balancer: BalancerOpt = None,
    reward: RewardOpt = None,
    imported: ImportedOpt = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="OUT.jsonl", help="Of FILE.jsonl: the file to write.")
    ] = None,
    plugin: PluginOpt = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    work: WorkOpt = DEFAULT_WORK,
    json: JsonOpt = False,
) -> None:
    """Run up to the balanced candidates, or balance FILE.jsonl alone, and print the table before and after."""
    parts = {"selector": selector, "balancer": balancer, "reward": reward}
    if Path(recipe).suffix != ".jsonl":
        if out is not None:
            raise RecipeError("-o is for candidates files.", "A recipe's balanced candidates go to the run's folder.")
        _execute(load_recipe(recipe, overrides, parts, None, imported), "balance", plugin, registry, work, json)
        return
    if out is None or balancer is None:
        raise RecipeError(f"{recipe} is balanced by what, into which file?", "Say --balancer NAME[:k=v] -o OUT.jsonl.")
    from leverplus_core.candidates.store import read_groups, write_groups
    from leverplus_core.pipeline.stages import balanced
    from leverplus_core.report.balance import balance_table

    chosen = load_recipe("demo", overrides, {"balancer": balancer})
    part = load_catalog(plugin).build("balancer", chosen.balancer.name, chosen.balancer.settings, "--balancer")
    picked, metadata, _ = balanced(read_groups(Path(recipe)), part, chosen.seed)
    write_groups(out, picked)
    output.table(metadata, balance_table, json)


def check(
    recipe: RecipeArg = "demo",
    overrides: SetOpt = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Validate a recipe and its parts, load the dataset, and say what a run would do; no model is asked."""
    from leverplus_core.pipeline.run import compose
    from leverplus_core.pipeline.workspace import Workspace

    loaded = load_recipe(recipe, overrides)
    parts = compose(loaded, Workspace(DEFAULT_WORK), load_catalog(plugin))
    counts = {split: len(parts.dataset.questions(split)) for split in ("train", "validation")}
    metadata = {
        "recipe": loaded.name,
        "run": loaded.fingerprint()[:12],
        "parts": {row["kind"]: f"{row['name']} ({row['distribution']} {row['version']})" for row in parts.provenance()},
        "questions": counts,
        "demonstrations": len(parts.dataset.demonstrations()),
        "note": " ".join(filter(None, (loaded.note, parts.dataset.note()))),
    }
    output.metadata(metadata, json)


def _execute(recipe: Recipe, until: str, plugin: list[Path] | None, registry: str, work: Path, json: bool) -> None:
    from leverplus_core.candidates.store import MINED
    from leverplus_core.io import read_json
    from leverplus_core.pipeline.run import compose
    from leverplus_core.pipeline.run import run as run_recipe
    from leverplus_core.pipeline.workspace import Workspace
    from leverplus_core.registry.registry import Registry
    from leverplus_core.report.balance import balance_table
    from leverplus_core.report.health import mined_view
    from leverplus_core.report.leaderboard import leaderboard_rows, leaderboard_table

    if until == "mine" and not recipe.scoring.mining.min_positives:
        raise RecipeError(
            "mining is off: scoring.mining.min_positives is 0.", "Say --set scoring.mining.min_positives=4, or another."
        )
    catalog = load_catalog(plugin)
    store = Registry(registry)
    with output.Bars() as bars:
        result = run_recipe(recipe, store, work, until, catalog, bars)
    output.say(f"run {result.run_id} ({recipe.name}): {result.calls:,} prompts asked")
    if until == "evaluate":
        output.table(leaderboard_rows(store, run=result.run_id), leaderboard_table, json)
    elif until == "mine":
        folder = next(Path(row["path"]) for row in store.stages(result.run_id) if row["name"] == "mine")
        output.table(read_json(folder / MINED), mined_view, json)
    elif until == "balance":
        fingerprint = compose(recipe, Workspace(work), catalog).fingerprints["balance"]
        metadata = read_json(work / "stages" / f"balance-{fingerprint}" / "balance.json")
        output.table(metadata, balance_table, json)
    else:
        output.rows([{"stage": stage, "status": state} for stage, state in result.stages.items()], json)
