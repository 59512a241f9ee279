"""Verbs that ask the registry."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, open_registry


def register(app: typer.Typer) -> None:
    app.command()(compare)
    app.command()(sql)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="RUN or RUN:METHOD.")],
    b: Annotated[str, typer.Argument(metavar="B", help="RUN or RUN:METHOD.")],
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """A minus B on the same questions: paired difference, 95% interval and p-value."""
    from leverplus_core.report.comparison import compare_rows, compare_table

    output.table(compare_rows(open_registry(registry), a, b), compare_table, json)


def sql(
    query: Annotated[str, typer.Argument(help="A SELECT statement.")],
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Ask the registry anything, read-only.

    The views `leaderboard` (a row a cell: run, name, dataset, model, method, shots, n, accuracy, ci_low, ci_high,
    status, note, seed, sweep, arm, source, accuracy_text, sample) and `predictions_with_questions` (a row an answer:
    run, name, method, shots, position, question_id, question, image_id, image_path, caption, answers, demonstrations,
    raw_text, prediction, accuracy) answer most questions. Below them are the tables runs, stages, curves,
    validation_questions, cells, predictions, questions and demonstrations. docs/registry.md describes the columns.
    """
    columns, found = open_registry(registry).sql(query)
    output.rows([dict(zip(columns, row, strict=True)) for row in found], json)
