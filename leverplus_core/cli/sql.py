"""`leverplus sql`."""

from __future__ import annotations

from itertools import count
from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, open_registry
from leverplus_core.errors import RegistryError


def sql(
    query: Annotated[str, typer.Argument(help="A SELECT statement.")],
    registry: RegistryOpt = DEFAULT_REGISTRY,
    seconds: Annotated[float, typer.Option(help="Stop a query that takes longer.")] = 30.0,
    limit: Annotated[int, typer.Option(min=1, help="Print the first rows of a longer result, and say so.")] = 10_000,
    json: JsonOpt = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Query the registry, read-only.

    A result wider than the terminal is printed as a block for each row.

    The views `leaderboard` (a row per cell: run, name, dataset, model, method, shots, n, accuracy, ci_low, ci_high,
    status, note, seed, sweep, arm, source, accuracy_text, sample, copied, prompts), `predictions_with_questions` (a row
    per answer: run, name, method, shots, position, question_id, question, image_id, image_path, caption, answers,
    demonstrations, raw_text, prediction, accuracy, copied) and `questions_asked` (how many runs asked the evaluation
    questions: dataset_fingerprint, split, runs, evaluations, largest_n, first_asked_at, last_asked_at) answer most
    questions. Under them are the tables runs, labels, stages, curves, validation_questions, cells, predictions,
    methods, evaluations, questions and demonstrations. docs/registry.md explains each column.
    """
    if json and csv:
        raise RegistryError("--json and --csv exclude each other.", "Choose one.")
    columns, found = open_registry(registry).sql(query, seconds, limit + 1)
    if len(found) > limit:
        found = found[:limit]
        output.warn(f"the result is longer than {limit:,} rows and was cut there: --limit takes more.")
    names = _distinct(columns)
    rows = [dict(zip(names, row, strict=True)) for row in found]
    if csv:
        from leverplus_core.report.tables import csv_text

        print(csv_text(rows, names), end="")
    else:
        output.rows(rows, json, records=True)


def _distinct(columns: list[str]) -> list[str]:
    """The names of columns, where one occurs again with a number: `n`, `n:2`."""
    names: dict[str, None] = {}
    for column in columns:
        tries = (f"{column}:{number}" for number in count(2))
        names[column if column not in names else next(name for name in tries if name not in (*names, *columns))] = None
    return list(names)
