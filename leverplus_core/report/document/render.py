"""The report as Markdown with its plots beside it, or as one HTML file that loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leverplus_core.errors import StorageError, needs_extra
from leverplus_core.io import atomic_write, storage_errors, write_bytes
from leverplus_core.report.document.blocks import Document, Plot, Table
from leverplus_core.report.document.content import Content
from leverplus_core.report.document.i18n import Translator
from leverplus_core.report.document.layout import lay_out
from leverplus_core.report.document.plots import INK
from leverplus_core.report.document.questions import Asked, Explorer, Packed, left_out, pack, remarks, words
from leverplus_core.report.pages import templates
from leverplus_core.report.tables import escape_markdown

if TYPE_CHECKING:
    from jinja2 import Environment

HTML, MARKDOWN = (".html", ".htm"), (".md", ".markdown")
MOST_MB = 10.0
"""Million bytes of an HTML report with its questions; mail programs take about twice as much."""
SPARE = 2000
"""Bytes for sentences about what was left out."""


@dataclass(frozen=True)
class Written:
    """The files of a report, and what was left out of them, in words."""

    files: list[Path]
    left_out: list[str]


def write_report(
    content: Content, say: Translator, out: Path, questions: Explorer | None = None, most_mb: float = MOST_MB
) -> Written:
    """Write the report to `out`, HTML or Markdown by its suffix; `questions` are for HTML only, of which they make a
    file of at most `most_mb` million bytes where it is not larger without them.

    The plots of a Markdown report are in `out.files`. A failure leaves earlier files unchanged. Raises StorageError
    for another suffix, a place that cannot be written to, and a folder `out.files` with other files, and
    LeverplusError where matplotlib or jinja2 is not installed.
    """
    check_output(out)
    document = lay_out(content, say)
    if out.suffix.lower() in HTML:
        page = html_page(document, say, questions, most_mb)
        write_bytes(out, page.text.encode())
        return Written([out], page.left_out)
    folder = out.with_name(f"{out.name}.files")
    text = _markdown(document, folder.name)
    with atomic_write(out) as f:
        f.write(text.encode())
        _replace_folder(folder, {f"{plot.id}.svg": _file(plot) for plot in document.plots})
    return Written([out, *(folder / f"{plot.id}.svg" for plot in document.plots)], [])


def check_output(out: Path) -> None:
    """Refuse before the work what `write_report` would refuse after it. Raises StorageError for another suffix."""
    if out.suffix.lower() not in (*HTML, *MARKDOWN):
        raise StorageError(f"{out} is neither Markdown nor HTML by its suffix.", "Name it FILE.md or FILE.html.")


def markdown_text(content: Content, say: Translator) -> str:
    """The report without plots, for a terminal. Raises LeverplusError where jinja2 is not installed."""
    return _markdown(lay_out(content, say, plots=False), "")


@dataclass(frozen=True)
class Page:
    """An HTML report, and what was left out of it, in words."""

    text: str
    left_out: list[str]


def html_text(document: Document) -> str:
    """The report without questions as one HTML page, which has no script. Raises LeverplusError where jinja2 is not
    installed."""
    return _page(document, None)


def html_page(document: Document, say: Translator, questions: Explorer | None = None, most_mb: float = MOST_MB) -> Page:
    """The report as one HTML page, with as many questions and pictures as `most_mb` million bytes leave room for.
    Raises LeverplusError where jinja2 is not installed."""
    plain = html_text(document)
    if questions is None or not most_mb:
        return Page(plain, [])
    told = words(questions, say)
    macros: Any = _environment().get_template("questions.html").module

    def item(question: Asked, picture: str) -> str:
        return str(macros.item(question, picture, questions, questions.shots[-1], told))

    script = resources.files("leverplus_core.report").joinpath("templates/questions.js").read_text(encoding="utf-8")

    def page(packed: Packed) -> str:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        about = remarks(questions, packed, most_mb, say)
        shown = {"asked": packed.items, "data": packed.data, "script": script, "hash": f"sha256-{digest}"}
        return _page(document, {"title": say("questions_title"), "remarks": about, "words": told, **shown})

    room = round(most_mb * 1e6) - len(page(Packed()).encode()) - SPARE
    packed = pack(questions, room, item, told)
    missing = left_out(questions, packed, most_mb, say)
    return Page(page(packed) if packed.questions else plain, missing)


def _page(document: Document, questions: dict[str, Any] | None) -> str:
    plots = {plot.id: plot.svg.replace(INK, "currentColor") for plot in document.plots}
    folded = [section.folded for section in document.sections]
    # The questions stand before all that is folded.
    first = folded.index(True) if questions and True in folded else None
    return (
        _environment()
        .get_template("report.html")
        .render(document=document, svg=plots, questions=questions, first=first)
    )


def _markdown(document: Document, folder: str) -> str:
    text = _environment().get_template("report.md").render(document=document, folder=folder)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def _environment() -> Environment:
    with needs_extra("report"):
        environment = templates("leverplus_core.report")
    environment.filters["md"] = escape_markdown
    environment.tests["table"] = lambda block: isinstance(block, Table)
    return environment


def _file(plot: Plot) -> bytes:
    """A plot in a file of its own has a white background, whatever the page that shows it."""
    style = ' style="background: #ffffff"'
    return re.sub(r"^<svg", f"<svg{style}", plot.svg, count=1).encode()


def _replace_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Replace a folder by one of these files; where that fails the earlier one stays."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise StorageError(f"cannot write {folder}: it is no folder.", "Move it, or name another output.")
    if folder.is_dir() and (strange := sorted(p.name for p in folder.iterdir() if p.suffix != ".svg")):
        raise StorageError(f"{folder} holds {strange[0]}, no plot of a report.", "Move it, or name another output.")
    made, old = (folder.with_name(f".{folder.name}.{kind}{os.getpid()}") for kind in ("", "old-"))
    with storage_errors(folder):
        try:
            made.mkdir()
            for name, data in files.items():
                (made / name).write_bytes(data)
            if folder.exists():
                folder.rename(old)
            made.rename(folder)
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)
            shutil.rmtree(made, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
