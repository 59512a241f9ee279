"""`leverplus leaderboard`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import completion, output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, open_registry
from leverplus_core.errors import RegistryError


def leaderboard(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...", autocompletion=completion.runs, help="Only these runs: id, prefix, name or 'latest'."
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Only this dataset; repeatable, as all filters are.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only this method.")] = None,
    shots: Annotated[list[int] | None, typer.Option(help="Only this number of shots.")] = None,
    n: Annotated[list[int] | None, typer.Option("--n", help="Only this sample size; else each run's largest.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only runs of this seed.")] = None,
    sweep: Annotated[list[str] | None, typer.Option(help="Only runs of this sweep.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="Only 'run', 'published' or 'imported'.")] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="[RUN:]METHOD", help="Add differences to it; a METHOD alone is each run's own."),
    ] = None,
    sort: Annotated[
        list[str] | None,
        typer.Option(help="One list, sorted by accuracy, delta, name or a filter's column; -accuracy: best first."),
    ] = None,
    group: Annotated[list[str] | None, typer.Option(help="One list per value of this column.")] = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    md: Annotated[bool, typer.Option("--md", help="Print Markdown.")] = False,
) -> None:
    """Show the accuracy of every method, by shots and sample size, with 95% intervals."""
    from leverplus_core.report.leaderboard import (
        leaderboard_csv,
        leaderboard_rows,
        leaderboard_table,
        shown_rows,
    )

    if json + csv + md > 1:
        raise RegistryError("--json, --csv and --md exclude each other.", "Choose one.")
    keys, groups = _words(sort), _words(group)
    filters = {
        "dataset": dataset, "model": model, "method": method, "shots": shots, "n": n, "seed": seed, "sweep": sweep,
        "source": source,
    }  # fmt: skip
    with open_registry(registry) as store:
        rows = shown_rows(leaderboard_rows(store, run, baseline, keys, groups, **filters), bool(n), groups, keys)
    view = leaderboard_table(rows, bool(n), groups, keys)
    if csv:
        print(leaderboard_csv(rows), end="")
    elif md:
        print(view.markdown(), end="")
    else:
        output.table(rows, lambda _: view, json)


def _words(texts: list[str] | None) -> list[str]:
    """`--sort a,b` is `--sort a --sort b`."""
    return [word.strip() for text in texts or () for word in text.split(",") if word.strip()]
