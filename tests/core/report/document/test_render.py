"""What is written: Markdown as it reads, files whole or absent, and the HTML as a browser shows it."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from leverplus_core.cli import main
from leverplus_core.errors import LeverplusError, StorageError
from leverplus_core.registry.registry import Registry
from leverplus_core.report.document.content import Content, report_content
from leverplus_core.report.document.i18n import LANGUAGES, Translator
from leverplus_core.report.document.layout import Table, lay_out
from leverplus_core.report.document.render import html_text, markdown_text, write_report
from leverplus_formats.table import TableImporter

PLOTS = ["accuracy.svg", "cost.svg", "curves.svg", "differences.svg", "headroom.svg"]
TABLE = """| n | shot | Merged | 平衡 |
|---|---|---|---|
| 30 | 1 | 64.20 | 64.2 |
| 60 | 2 | 61.50 | 63.10 |
"""
NASTY = '<b>甲|乙</b> & "co" *x* _y_ `z` [w](v) $\\bad{$'


def test_markdown_is_complete_and_its_tables_are_tables(swept: Registry, tmp_path: Path) -> None:
    content = report_content(swept, ["sw"], "separated:rce")
    written = write_report(content, Translator(), tmp_path / "out.md")
    assert sorted(p.name for p in (tmp_path / "out.md.files").iterdir()) == PLOTS
    assert {p.name for p in written} == {"out.md", *PLOTS}
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


# The HTML, as text and in a browser.


class Outside(HTMLParser):
    """Whatever an HTML page would load, and what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "href", "xlink:href", "action", "poster") and value:
                self.loaded += [] if value.startswith("#") else [value]


@pytest.fixture(scope="module")
def pages(swept_file: Path, copy_registry, tmp_path_factory: pytest.TempPathFactory, write) -> dict[str, str]:  # type: ignore[no-untyped-def]
    """In both languages a report that has every section, with a label that must not be taken for markup."""
    folder = tmp_path_factory.mktemp("pages")
    copy_registry(swept_file, folder / "r.db")
    registry, chance = Registry(f"sqlite:///{folder / 'r.db'}"), np.random.default_rng(1)
    fixed = {(m, s): chance.choice([0.0, 1.0], 60) for m in ("random", "oracle", "rce") for s in (1, 2)}
    write(registry, "odd", fixed, [30, 60], name=NASTY, reward="odd", note=NASTY, model="模型")
    (folder / "t.md").write_text(TABLE, encoding="utf-8")
    registry.record_published("paper", TableImporter().read(folder / "t.md"))
    content = report_content(registry, ["sw", "odd", "paper"], "separated0:rce")
    return {language: html_text(lay_out(content, Translator(language))) for language in LANGUAGES}


def test_the_html_is_one_file_and_text_stays_text(pages: dict[str, str]) -> None:
    for page in pages.values():
        parser = Outside()
        parser.feed(page)
        assert parser.loaded == [] and not {"script", "link", "iframe", "img", "object"} & set(parser.tags)
        assert not re.search(r"@import|url\((?!#)", page)
        assert "<b>甲" not in page and "&lt;b&gt;甲|乙&lt;/b&gt;" in page and "模型" in page
        assert parser.tags.count("svg") == len(PLOTS)
        ids = re.findall(r'\bid="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        assert {i for i in re.findall(r'(?:href="#|url\(#)([^")]+)', page)} <= set(ids)


def test_colors_are_told_apart_by_brightness_in_the_light_and_in_the_dark(pages: dict[str, str]) -> None:
    """WCAG's contrast: 4.5 for text."""
    schemes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", pages["en"], re.S)
    ]
    assert len(schemes) == 3
    for scheme in schemes:
        for ink in ("ink", "dim", "better", "worse"):
            for ground in ("page", "head", "best"):
                assert contrast(scheme[ink], scheme[ground]) >= 4.5, (ink, ground, scheme)


def contrast(a: str, b: str) -> float:
    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
)  # fmt: skip
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
PROBE = """<script>addEventListener("load", () => {
  const out = e => !e.closest("table, svg") && e.getBoundingClientRect().right > innerWidth + 1;
  const wide = [...document.querySelectorAll("body *")].filter(out).map(e => e.outerHTML.slice(0, 60));
  const texts = [...document.querySelectorAll("svg text")].map(e => parseFloat(getComputedStyle(e).fontSize) *
    e.ownerSVGElement.getBoundingClientRect().width / e.ownerSVGElement.viewBox.baseVal.width);
  parent.document.body.dataset.probe = JSON.stringify({
    inner: innerWidth, scroll: document.documentElement.scrollWidth, wide, smallest: Math.min(...texts),
    loaded: performance.getEntriesByType("resource").map(e => e.name),
    tables: [...document.querySelectorAll("table")].map(t => t.id),
    pictures: [...document.querySelectorAll("figure svg")].filter(s => s.getBoundingClientRect().height > 100).length,
    ground: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
  });
});</script></body>"""


def browse(arguments: list[str], folder: Path) -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing = f"none of the browsers {', '.join(BROWSERS)} is installed: `make browser`"
        if os.environ.get("LEVERPLUS_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    command = [found, *FLAGS, f"--user-data-dir={folder}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


def probe(page: str, tmp_path: Path, width: int, *more: str) -> dict[str, Any]:
    """What a browser made of the page in a frame of this width: its own window is never narrower than 500 pixels.

    The page's policy, which forbids scripts, would forbid the probe as well."""
    inside = html.escape(POLICY.sub("", page).replace("</body>", PROBE))
    frame = f'<iframe style="border: 0" width="{width}" height="844" srcdoc="{inside}"></iframe>'
    (tmp_path / "framed.html").write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><body>{frame}</body>', encoding="utf-8"
    )
    address = (tmp_path / "framed.html").as_uri()
    dom = browse(
        [*more, "--window-size=1400,900", "--virtual-time-budget=2000", "--dump-dom", address], tmp_path / "own"
    )
    said = re.search(r'data-probe="([^"]*)"', dom)
    assert said, "the page's script did not run"
    return dict(json.loads(html.unescape(said[1])))


@pytest.mark.parametrize(("language", "width"), [("en", 390), ("zh", 390), ("en", 1280)])
def test_a_browser_shows_every_table_and_nothing_wider_than_the_screen(
    pages: dict[str, str], tmp_path: Path, language: str, width: int
) -> None:
    seen = probe(pages[language], tmp_path, width)
    assert seen["inner"] == width and seen["scroll"] == width and seen["wide"] == []
    assert seen["loaded"] == [] and seen["pictures"] == len(PLOTS)
    assert seen["tables"] == re.findall(r'<table id="([^"]+)"', pages[language]) != []
    wanted = ("differing", "runs", "common", "balancing", "shortfall", "accuracy", "differences", "by_shots", "by_size")
    assert {f"table-{name}" for name in (*wanted, "wins", "tallies", "printed-1", "headroom", "cost")} <= {
        *seen["tables"]
    }
    assert seen["smallest"] >= 8  # pixels of the smallest letters in pictures


def test_a_browser_shows_it_in_the_dark(pages: dict[str, str], tmp_path: Path) -> None:
    dark = probe(pages["en"], tmp_path, 390, "--blink-settings=preferredColorScheme=0")
    assert (dark["ground"], dark["ink"]) == ("rgb(20, 24, 29)", "rgb(230, 233, 236)")


def test_a_browser_draws_it(pages: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(pages["zh"], encoding="utf-8")
    for width, height in ((390, 844), (1280, 900)):
        shot = tmp_path / f"{width}.png"
        arguments = [f"--screenshot={shot}", f"--window-size={width},{height}", (tmp_path / "page.html").as_uri()]
        browse(arguments, tmp_path / "profile")
        with Image.open(shot) as image:
            assert image.size == (width, height)
            assert len(image.convert("L").getcolors() or []) > 20  # letters, not a blank page


# Hostile names.

HOSTILE = (
    "<script>document.title = 'owned'</script>", "<img src=x onerror=\"document.title = 'owned'\">",
    "\"><svg onload=\"document.title = 'owned'\">", "</text></svg><script>document.title = 'owned'</script>",
    "[x](javascript:document.title='owned')", "<javascript:document.title='owned'>", "![x](https://e.org/p.png)",
    "[x]: javascript:document.title='owned'", "$\\bad{$", "_private", "font: 10px x", "\x1b]0;owned\x07\u202eb",
)  # fmt: skip
LIVE = """<script>addEventListener("load", () => { document.body.dataset.live = JSON.stringify({
  links: [...document.querySelectorAll("a")].map(a => a.getAttribute("href")).filter(h => !h.startsWith("#")),
  loaded: [...document.querySelectorAll("script, img, iframe, object, embed, link, base, form")].map(e => e.outerHTML),
  handlers: [...document.querySelectorAll("*")].flatMap(e => [...e.attributes]).map(a => a.name)
    .filter(n => n.startsWith("on")), texts: [...document.querySelectorAll("svg text")].map(t => t.textContent),
}); });</script></body>"""


@pytest.fixture(scope="module")
def hostile(swept_file: Path, copy_registry, tmp_path_factory: pytest.TempPathFactory, write) -> Content:  # type: ignore[no-untyped-def]
    """A report in whose every label, note and setting something wants to be run."""
    folder = tmp_path_factory.mktemp("hostile")
    registry, chance = Registry(f"sqlite:///{folder / 'r.db'}"), np.random.default_rng(1)
    for place, name in enumerate(HOSTILE):
        scores = {(m, s): chance.choice([0.0, 1.0], 20) for m in ("random", "oracle", "rce") for s in (1, 2)}
        write(registry, f"r{place}", scores, [10, 20], name=name, reward=name, note=name, model=name)
    return report_content(registry, [f"r{place}" for place in range(len(HOSTILE))], "r0:random")


def live(page: str, tmp_path: Path) -> dict[str, Any]:
    """What is live in a page that a browser has shown; a script of the page's own changes its title."""
    (tmp_path / "page.html").write_text(POLICY.sub("", page).replace("</body>", LIVE), encoding="utf-8")
    address = (tmp_path / "page.html").as_uri()
    dom = browse(["--virtual-time-budget=2000", "--dump-dom", address], tmp_path / "own")
    said = re.search(r'data-live="([^"]*)"', dom)
    assert said and "<title>owned" not in dom
    return dict(json.loads(html.unescape(said[1])))


def test_nothing_of_a_hostile_name_is_live_in_a_browser(hostile: Content, tmp_path: Path) -> None:
    seen = live(html_text(lay_out(hostile, Translator())), tmp_path)
    assert (seen["links"], seen["handlers"], len(seen["loaded"])) == ([], [], 1)  # the script that looks
    drawn = "\n".join(seen["texts"])
    for name in HOSTILE[:-1]:
        assert name in drawn
    assert r"\x1b]0;owned\x07\u202eb" in drawn


def test_nothing_of_a_hostile_name_is_live_in_the_markdown_turned_html(hostile: Content, tmp_path: Path) -> None:
    write_report(hostile, Translator(), tmp_path / "out.md")
    text = (tmp_path / "out.md").read_text(encoding="utf-8")
    made = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    page = f"<!DOCTYPE html><title>report</title><body>{made}</body>"
    seen = live(page, tmp_path)
    assert (seen["links"], seen["handlers"]) == ([], [])
    own = [f'<img src="out.md.files/{name}"' for name in sorted(PLOTS)]
    assert sorted(one[: one.index('" alt') + 1] for one in seen["loaded"] if one.startswith("<img")) == own
    assert len(seen["loaded"]) == len(own) + 1
    for file in (tmp_path / "out.md.files").iterdir():
        tags = {node.tag.rpartition("}")[2] for node in ElementTree.parse(file).iter()}
        assert not tags & {"script", "image", "foreignObject", "a"}


def test_a_page_forbids_scripts_and_all_that_is_outside(hostile: Content, tmp_path: Path) -> None:
    page = html_text(lay_out(hostile, Translator()))
    assert POLICY.search(page)
    script = "<script>document.body.dataset.probe = 'ran'</script></body>"
    for policy, ran in ((True, False), (False, True)):
        shown = (page if policy else POLICY.sub("", page)).replace("</body>", script)
        (tmp_path / "page.html").write_text(shown, encoding="utf-8")
        dom = browse(["--dump-dom", (tmp_path / "page.html").as_uri()], tmp_path / "own")
        assert ('data-probe="ran"' in dom) == ran
