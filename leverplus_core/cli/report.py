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
    max_mb: Annotated[
        float,
        typer.Option(min=0, help="Most megabytes of FILE.html with questions and pictures; 0 leaves these out."),
    ] = 10.0,
    lang: Annotated[str, typer.Option(help="en or zh.")] = "en",
    registry: RegistryOpt = DEFAULT_REGISTRY,
    json: JsonOpt = False,
) -> None:
    """Write a report on one experiment: settings, data, the primary endpoint, the grid, headroom and cost.

    FILE.html is one file with its plots and its questions inside, with pictures; the plots of FILE.md are in
    FILE.md.files. --json prints the contents.
    """
    from dataclasses import asdict

    from leverplus_core.report.document.content import report_content
    from leverplus_core.report.document.i18n import Translator
    from leverplus_core.report.document.lead import lead
    from leverplus_core.report.document.questions import explorer
    from leverplus_core.report.document.render import HTML, check_output, markdown_text, write_report
    from leverplus_core.report.document.summary import summary

    translator = Translator(lang)
    if out is not None:
        check_output(out)
    with open_registry(registry) as store:
        content = report_content(store, runs, baseline, method or [])
        asked = explorer(store, content) if out is not None and out.suffix.lower() in HTML and max_mb else None
    if out is not None:
        written = write_report(content, translator, out, asked, max_mb)
        for text in (*(f"wrote {file}" for file in written.files), *written.left_out):
            output.say(text)
    if json:
        told = {"headline": lead(content, translator).sentence, "summary": summary(content, translator)}
        output.table(asdict(content) | told, lambda _: "", json)
    elif out is None:
        print(markdown_text(content, translator), end="")
