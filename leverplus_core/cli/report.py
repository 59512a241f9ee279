"""`leverplus report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leverplus_core.cli import completion, output
from leverplus_core.cli.options import DEFAULT_REGISTRY, JsonOpt, RegistryOpt, open_registry


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            autocompletion=completion.runs,
            help="Sweeps, runs or RUN:METHOD; a run by id, prefix, name or 'latest'.",
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(metavar="[RUN:]METHOD", help="By default the best baseline of one arm, or the first of several."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method to report, repeatable; by default the policy that each arm trained last."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="FILE.md or FILE.html; else Markdown on stdout."),
    ] = None,
    lang: Annotated[str, typer.Option(help="en or zh.")] = "en",
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Write a report on one experiment: settings, data, the primary endpoint, the grid, headroom and cost.

    FILE.html is one file with its plots inside; those of FILE.md are in FILE.md.files. --json prints the contents.
    """
    from dataclasses import asdict

    from leverplus_core.report.document.content import report_content
    from leverplus_core.report.document.i18n import Translator
    from leverplus_core.report.document.render import check_output, markdown_text, write_report
    from leverplus_core.report.document.summary import summary

    translator = Translator(lang)
    if out is not None:
        check_output(out)
    with open_registry(registry) as store:
        content = report_content(store, runs, baseline, method or [])
    if out is not None:
        for file in write_report(content, translator, out):
            output.say(f"wrote {file}")
    if json:
        output.table(asdict(content) | {"summary": summary(content, translator)}, lambda _: "", json)
    elif out is None:
        print(markdown_text(content, translator), end="")
