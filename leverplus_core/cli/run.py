"""`leverplus run`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leverplus_core.cli import completion, options, output
from leverplus_core.cli.recipe_options import RecipeOptions, takes_recipe
from leverplus_core.errors import RecipeError

if TYPE_CHECKING:
    from leverplus_core.pipeline.run import RunResult
    from leverplus_core.plugins.manager import Catalog
    from leverplus_core.recipes.recipe import Recipe
    from leverplus_core.registry.registry import Registry


ADVICE = (
    "All else was evaluated. Where the answers have another form than the true ones, change prompt.system, task or "
    "decoding.max_new_tokens; else loosen the balancer, lower scoring.correct_threshold, or search more questions."
)


@takes_recipe
def run(
    *,
    chosen: RecipeOptions,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="STAGE", autocompletion=completion.stages, help="End after this stage."),
    ] = None,
    redo: Annotated[
        list[str] | None,
        typer.Option(
            "--redo",
            metavar="STAGE",
            autocompletion=completion.stages,
            help="Run this stage even if its result is there; repeatable.",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Run it with so many seeds, as one arm, sharing equal stages.")
    ] = 1,
    track: options.TrackOpt = None,
    plugin: options.PluginOpt = None,
    registry: options.RegistryOpt = options.DEFAULT_REGISTRY,
    work: options.WorkOpt = options.DEFAULT_WORK,
    json: options.JsonOpt = False,
) -> None:
    """Run a recipe, or resume it where it was stopped, and show its accuracies and its primary endpoint.

    With --seeds N it runs N times, with seeds from the recipe's own on, and one table shows the means over them.

    With --until, the table of the stage `mine`, `balance` or `choose_baseline` is shown, and the states of the stages
    for any other.
    Imported data that brings its own features ends after training, because no other question can be asked.
    Where the balancer leaves nothing to learn from, what can be evaluated is, and the exit code is 1.
    """
    recipe = chosen.load()
    from leverplus_core.pipeline.run import run as run_recipe
    from leverplus_core.registry.registry import Registry
    from leverplus_core.report.unchanged import untrained_methods

    if until == "mine" and not recipe.scoring.mining.min_positives:
        raise RecipeError(
            "mining is off: scoring.mining.min_positives is 0.", "Use --set scoring.mining.min_positives=4, or another."
        )
    catalog = options.load_catalog(plugin)
    if seeds > 1:
        if until or redo:
            raise RecipeError(
                "--seeds runs to the end: it takes neither --until nor --redo.", "Run one seed at a time."
            )
        _run_seeds(recipe, seeds, Registry(registry), work, catalog, track or (), json)
        return
    store = Registry(registry)
    with output.Bars() as bars, output.stopping():
        result = run_recipe(
            recipe, store, work, until=until, redo=redo or (), catalog=catalog, progress=bars, track=track or ()
        )
    output.say(f"run {result.run_id} ({recipe.name}): {result.calls:,} model calls")
    _show(store, result, until, json)
    _end(untrained_methods(store, [result.run_id]))


def _run_seeds(
    recipe: Recipe, seeds: int, store: Registry, work: Path, catalog: Catalog, track: Sequence[str], json: bool
) -> None:
    from leverplus_core.pipeline.sweep import Sweep, run_sweep
    from leverplus_core.report.unchanged import untrained_methods

    planned = Sweep.repeated(recipe, seeds)
    output.say(f"{planned.name}: {seeds} seeds from {recipe.seed} on")
    with output.Bars() as bars, output.stopping():
        ids = run_sweep(planned, store, work, catalog, bars, track)
    _show_evaluated(store, ids, planned.name, json)
    _end(untrained_methods(store, ids))


def _end(untrained: Sequence[dict[str, Any]]) -> None:
    """Exit code 1 where the run is whole, but lacks methods that it was to train."""
    if untrained:
        from leverplus_core.report.unchanged import untrained_text

        output.warn(f"{untrained_text(untrained)}. {ADVICE}")
        raise typer.Exit(1)


def _show(store: Registry, result: RunResult, until: str | None, json: bool) -> None:
    from leverplus_core.candidates.store import MINED
    from leverplus_core.io import read_json
    from leverplus_core.pipeline.stages.balance import METADATA
    from leverplus_core.report.balance import balance_table
    from leverplus_core.report.health import mined_view

    last = list(result.stages)[-1]
    if last == "evaluate" and result.stages[last] != "off":
        _show_evaluated(store, [result.run_id], None, json)
    elif last == until and last in ("mine", "balance") and result.stages[last] != "off":
        folder = next(Path(row["path"]) for row in store.stages(result.run_id) if row["name"] == last)
        file, view = {"mine": (MINED, mined_view), "balance": (METADATA, balance_table)}[last]
        output.table(read_json(folder / file), view, json)
    elif last == until == "choose_baseline" and result.stages[last] != "off":
        found = next(row["metadata"] for row in store.stages(result.run_id) if row["name"] == last)
        ranked = sorted(found["accuracies"].items(), key=lambda item: -item[1])
        on = {
            "held_out": "held-out questions",
            "validation_questions": "questions that choose the epoch",
            "other_folds": "questions, most often, each fold being left out once",
        }
        output.say(f"best on {found['questions']} {on[found['source']]}: {found['best']}")
        output.rows([{"baseline": name, "mean over shots": round(100 * value, 2)} for name, value in ranked], json)
    else:
        output.rows([{"stage": stage, "status": state} for stage, state in result.stages.items()], json)


def _show_evaluated(store: Registry, runs: list[str], name: str | None, json: bool) -> None:
    """The accuracies of one run, or the means over the seeds of an arm, and the primary endpoint below them."""
    from leverplus_core.report.headline import arm_rows, headline, headline_view
    from leverplus_core.report.leaderboard import leaderboard_rows, leaderboard_table
    from leverplus_core.report.tables import View

    rows = leaderboard_rows(store, run=runs[0]) if name is None else arm_rows(store, runs, name)
    grid = leaderboard_table(rows)
    if not rows:
        output.table({"leaderboard": rows, "headline": None}, lambda _: grid, json)
        return
    found = headline(store, runs, name)
    shown = {"leaderboard": rows, "headline": found.data()}
    output.table(shown, lambda _: View([*grid.blocks, "", *headline_view(found).blocks]), json)
