"""The report as a file, from the registry in one call: for trackers and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leverplus_core.registry.registry import Registry
from leverplus_core.report.document.content import report_content
from leverplus_core.report.document.i18n import Translator
from leverplus_core.report.document.questions import explorer
from leverplus_core.report.document.render import HTML, write_report


def report_file(registry: Registry, runs: Sequence[str], out: Path, lang: str = "en") -> list[Path]:
    """Write the report of runs of a registry, as `leverplus report RUN... -o OUT` does; returns the files written.

    Raises RegistryError for a run that is not there, StorageError where `out` cannot be written, and LeverplusError
    where matplotlib or jinja2 is not installed.
    """
    content = report_content(registry, runs)
    asked = explorer(registry, content) if out.suffix.lower() in HTML else None
    return write_report(content, Translator(lang), out, asked).files
