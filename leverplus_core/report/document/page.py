"""The report as Markdown with pictures beside it, or as one HTML file that needs nothing else."""

from __future__ import annotations

import os
import re
import shutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leverplus_core.errors import StorageError
from leverplus_core.io import atomic_write, storage_errors, write_bytes
from leverplus_core.report.document.content import Content
from leverplus_core.report.document.language import Words
from leverplus_core.report.document.layout import Document, Fold, Table, lay_out
from leverplus_core.report.document.pictures import INK, Picture

if TYPE_CHECKING:
    from jinja2 import Environment

HTML, MARKDOWN = (".html", ".htm"), (".md", ".markdown")


def write_report(content: Content, words: Words, out: Path) -> list[Path]:
    """Write the report to `out`, HTML or Markdown by its suffix; the files written.

    Pictures of a Markdown report lie in `out.files`. A report that cannot be written leaves all as it was. Raises
    StorageError for another suffix, a place that cannot be written to, and a folder `out.files` of other files.
    """
    check_output(out)
    document = lay_out(content, words)
    if out.suffix.lower() in HTML:
        write_bytes(out, html_text(document).encode())
        return [out]
    folder = out.with_name(f"{out.name}.files")
    text = _markdown(document, folder.name)
    with atomic_write(out) as f:
        f.write(text.encode())
        _replace_folder(folder, {f"{picture.id}.svg": _file(picture) for picture in document.pictures})
    return [out, *(folder / f"{picture.id}.svg" for picture in document.pictures)]


def check_output(out: Path) -> None:
    """What would be refused at the end, told before the work. Raises StorageError as `write_report`."""
    if out.suffix.lower() not in (*HTML, *MARKDOWN):
        raise StorageError(f"{out} is neither Markdown nor HTML by its name.", "Name it FILE.md or FILE.html.")


def markdown_text(content: Content, words: Words) -> str:
    """The report without pictures, for a terminal."""
    return _markdown(lay_out(content, words, pictures=False), "")


def html_text(document: Document) -> str:
    pictures = {picture.id: picture.svg.replace(INK, "currentColor") for picture in document.pictures}
    return _environment().get_template("report.html").render(document=document, svg=pictures)


def _markdown(document: Document, folder: str) -> str:
    text = _environment().get_template("report.md").render(document=document, folder=folder)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("leverplus_core.report"),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = escape_markdown
    environment.tests |= {
        "table": lambda block: isinstance(block, Table),
        "fold": lambda block: isinstance(block, Fold),
        "picture": lambda block: isinstance(block, Picture),
    }
    return environment


def escape_markdown(text: Any) -> str:
    """Text that a reader sees as it is, wherever in a paragraph or a table's cell."""
    plain = " ".join(str(text).split())
    return _BLOCK.sub(r"\1\3\\\2\4", _INLINE.sub(r"\\\g<0>", plain))


_INLINE = re.compile(r"[\\`*|<~]|(?<![^\W_])_|_(?![^\W_])|^\[|\](?=[(:\[])|&(?=#?\w+;)")
"""Markup wherever it stands, and `_`, brackets and `&` where they would make emphasis, a link or another letter."""
_BLOCK = re.compile(r"^(\d{0,9})([#+.)=-])(?=[\s#=-]|$)|^()(>)")
"""What begins a heading, a quotation or a list."""


def _file(picture: Picture) -> bytes:
    """A picture for itself stands on white, whatever the page that shows it."""
    style = ' style="background: #ffffff"'
    return re.sub(r"^<svg", f"<svg{style}", picture.svg, count=1).encode()


def _replace_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Put a folder of these files in the place of an earlier one; the earlier one stays where that fails."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise StorageError(f"cannot write {folder}: it is no folder of its own.", "Move it, or name another output.")
    if folder.is_dir() and (strange := sorted(p.name for p in folder.iterdir() if p.suffix != ".svg")):
        raise StorageError(f"{folder} holds {strange[0]}, no picture of a report.", "Move it, or name another output.")
    made, old = (folder.with_name(f".{folder.name}.{kind}{os.getpid()}") for kind in ("", "old-"))
    with storage_errors(folder):
        try:
            made.mkdir()
            for name, data in files.items():
                (made / name).write_bytes(data)
            if folder.exists():
                folder.rename(old)
            try:
                made.rename(folder)
            except OSError:
                if old.exists():
                    old.rename(folder)
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
