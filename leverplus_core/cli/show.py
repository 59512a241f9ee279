"""`leverplus show`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, RunArg, open_registry


def show(
    run: RunArg,
    question: Annotated[str, typer.Option("--question", metavar="ID", help="The question to show.")],
    method: Annotated[list[str] | None, typer.Option(help="Only this method; repeatable.")] = None,
    shots: Annotated[list[int] | None, typer.Option(help="Only this number of shots; repeatable.")] = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Show one question: its image and answers, and what each method showed, answered and scored."""
    from leverplus_core.report.question import question_record, question_view

    with open_registry(registry) as store:
        metadata = question_record(store, run, question, method or (), shots or ())
    output.table(metadata, question_view, json)
