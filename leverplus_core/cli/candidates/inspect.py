"""`leverplus candidates inspect`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leverplus_core.cli import options, output
from leverplus_core.cli.recipe_options import RecipeOptions
from leverplus_core.errors import DataError

if TYPE_CHECKING:
    from leverplus_core.recipes.recipe import Recipe


def inspect(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE|FOLDER|RUN", help="A candidates file, a stage's folder, or a run's last candidates."
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Check against this recipe's dataset, pools and reward; a run has its own."),
    ] = None,
    plugin: options.PluginOpt = None,
    registry: options.RegistryOpt = options.DEFAULT_REGISTRY,
    work: options.WorkOpt = options.DEFAULT_WORK,
    json: options.JsonOpt = False,
) -> None:
    """Show the health of candidates: headroom, positives, flat questions, accuracies, sources, duplicates, leaks."""
    from leverplus_core.candidates.stats import inspect as inspect_groups
    from leverplus_core.candidates.store import iter_groups
    from leverplus_core.report.health import health_view

    file, pool, known = _locate(target, registry)
    against = RecipeOptions(recipe).load() if recipe else known
    dataset = reward = pools = None
    if against:
        from leverplus_core.pipeline.pools import POOLS, all_pools

        with options.composed(against, plugin, work) as pipeline:
            context = pipeline.context
            dataset, reward = None if context.offline else context.dataset, context.reward
            if recipe or not pool:
                pool = pipeline.folder(pipeline.stage("pool")).path
            if os.path.exists(pool / POOLS):
                pools = all_pools(pool)
            else:
                output.warn(f"no pools in {pool}: whether demonstrations are in them is not checked")
    groups = (group for _, (group,) in iter_groups([file]))
    output.table({"file": str(file), **inspect_groups(groups, pools, dataset, reward)}, health_view, json)


def _locate(target: str, registry: str) -> tuple[Path, Path | None, Recipe | None]:
    """The candidates file of a target; for a run also the folder of its pools, and its recipe."""
    from leverplus_core.candidates.store import BALANCED, CANDIDATES

    path = Path(target)
    names = (BALANCED, CANDIDATES)
    if os.path.isdir(path):
        there = [path / name for name in names if os.path.isfile(path / name)]
        if not there:
            raise DataError(f"{path} holds no candidates.", f"A stage's folder holds {' or '.join(names)}.")
        return there[0], None, None
    if os.path.isfile(path) or path.suffix or len(path.parts) > 1:
        return path, None, None
    from leverplus_core.recipes.recipe import Recipe

    store = options.open_registry(registry)
    run = store.resolve(target)
    folders = {row["name"]: Path(row["path"]) for row in store.stages(run["id"]) if row["status"] == "done"}
    made = [stage for stage in ("balance", "mine", "propose") if stage in folders]
    if not made:
        raise DataError(
            f"run {run['id']} ({run['name']}) has no candidates.", "Resume it: `leverplus run --until balance`."
        )
    folder = folders[made[0]]
    there = [folder / name for name in names if os.path.isfile(folder / name)]
    if not there:
        raise DataError(
            f"run {run['id']}: {folder} no longer exists.",
            "Run this in the folder where the run was made, or repeat the run.",
        )
    return there[0], folders.get("pool"), Recipe.of(run["recipe"])
