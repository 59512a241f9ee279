"""What is written: Markdown as it reads, and files whole or absent."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from leverplus_core.cli import main
from leverplus_core.errors import LeverplusError, StorageError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.document.content import report_content
from leverplus_core.report.document.i18n import Translator
from leverplus_core.report.document.layout import Table, lay_out
from leverplus_core.report.document.render import html_text, markdown_text, write_report

PLOTS = ["accuracy.svg", "cost.svg", "curves.svg", "differences.svg", "headroom.svg", "lead.svg"]


def test_markdown_is_complete_and_its_tables_are_tables(swept: Registry, tmp_path: Path) -> None:
    content = report_content(swept, ["sw"], "separated:rce")
    written = write_report(content, Translator(), tmp_path / "out.md")
    assert sorted(p.name for p in (tmp_path / "out.md.files").iterdir()) == PLOTS
    assert written.left_out == []
    assert {p.name for p in written.files} == {"out.md", *PLOTS}
    text = (tmp_path / "out.md").read_text(encoding="utf-8")
    sections = lay_out(content, Translator()).sections
    tables = [block for section in sections for block in section.blocks if isinstance(block, Table)]
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    assert sum(t.type == "table_open" for t in tokens) == len(tables)
    rows = sum(1 + len(t.rows) for t in tables)
    assert sum(t.type == "tr_open" for t in tokens) == rows
    for name in PLOTS:
        assert f"](out.md.files/{name})" in text
        svg = (tmp_path / "out.md.files" / name).read_text(encoding="utf-8")
        assert svg.startswith("<svg") and "currentColor" not in svg
    assert "\n\n\n" not in text and not any(line != line.rstrip() for line in text.splitlines())
    assert "## Published" not in text


def test_the_same_registry_gives_the_same_pictures_and_pages(swept: Registry) -> None:
    first, again = (lay_out(report_content(swept, ["sw"]), Translator()) for _ in range(2))
    assert len(first.plots) == len(PLOTS)
    assert first == again and html_text(first) == html_text(again)


def test_without_a_file_the_tables_go_to_the_terminal(swept: Registry) -> None:
    text = markdown_text(report_content(swept, ["sw"]), Translator())
    assert "![" not in text and "## Accuracy" in text


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_report_that_cannot_be_written_leaves_all_as_it_was(
    swept: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, words, place = report_content(swept, ["sw"]), Translator(), tmp_path / "place"
    place.mkdir()
    write_report(content, words, place / "out.md")
    (place / "out.md").write_text("old", encoding="utf-8")
    (place / "file").write_text("x", encoding="utf-8")
    before = listing(place)
    for out in ("out.txt", "file/out.html", "file/out.md"):
        with pytest.raises(StorageError):
            write_report(content, words, place / out)
        assert listing(place) == before
    # The disk fills up over the pictures, or the folder cannot be put in its place.
    for name in ("write_bytes", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, _full)
            with pytest.raises(StorageError, match="no room left"):
                write_report(content, words, place / "out.md")
        assert listing(place) == before
    (place / "out.md.files" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match=r"holds mine.txt"):
        write_report(content, words, place / "out.md")
    assert (place / "out.md").read_text(encoding="utf-8") == "old"


def _full(*_: object) -> None:
    import errno

    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sw", "--baseline", "nobody:rce"], "no run 'nobody'"),
        (["sw", "--lang", "de"], "no reports in the language 'de'"),
        (["sw", "-o", "out.pdf"], "neither Markdown nor HTML"),
        (["sw", "-o", "file/out.html"], "cannot write"),
        (["nobody"], "no run 'nobody'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    swept: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    before = {p.name for p in tmp_path.iterdir()}
    monkeypatch.setattr(sys, "argv", ["leverplus", "report", *arguments, "--registry", f"sqlite:///{tmp_path}/r.db"])
    with pytest.raises(SystemExit) as e:
        main()
    told = capsys.readouterr()
    assert e.value.code == 2 and told.out == ""
    assert message in told.err and told.err.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} - {"r.db-wal", "r.db-shm"} == before - {"r.db-wal", "r.db-shm"}


def test_the_verb_writes_and_prints(
    swept: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sub" / "r.html"
    argv = ["leverplus", "report", "sw", "-o", str(out), "--json", "--registry", f"sqlite:///{tmp_path}/r.db"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as e:
        main()
    metadata = json.loads(capsys.readouterr().out)
    assert e.value.code in (0, None) and out.exists()
    assert metadata["baseline"] == "separated" and metadata["grid"] and metadata["summary"]


def test_what_needs_an_extra_names_it(swept: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = report_content(swept, ["sw"])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(LeverplusError, match=r"matplotlib is not installed. Run: pip install 'leverplus\[report\]'"):
        write_report(content, Translator(), tmp_path / "out.md")
    assert not list(tmp_path.glob("out*"))
