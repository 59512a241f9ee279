"""The HTML report, as text and as a real browser shows it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from leverplus_core.registry.registry import Registry
from leverplus_core.report.document.content import Content, report_content
from leverplus_core.report.document.i18n import LANGUAGES, Translator
from leverplus_core.report.document.layout import lay_out
from leverplus_core.report.document.render import html_text, write_report
from leverplus_formats.table import TableImporter
from tests.browser import DESK, PHONE, Browser

PLOTS = ["accuracy.svg", "cost.svg", "curves.svg", "differences.svg", "headroom.svg", "lead.svg"]
TABLE = """| n | shot | Merged | 平衡 |
|---|---|---|---|
| 30 | 1 | 64.20 | 64.2 |
| 60 | 2 | 61.50 | 63.10 |
"""
NASTY = '<b>甲|乙</b> & "co" *x* _y_ `z` [w](v) $\\bad{$'


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


READ = """(() => {
  const texts = [...document.querySelectorAll("svg text")].map(e => parseFloat(getComputedStyle(e).fontSize) *
    e.ownerSVGElement.getBoundingClientRect().width / e.ownerSVGElement.viewBox.baseVal.width);
  return {
    inner: innerWidth, scroll: document.documentElement.scrollWidth, smallest: Math.min(...texts.filter(Boolean)),
    tables: [...document.querySelectorAll("table")].map(t => t.id),
    pictures: [...document.querySelectorAll("figure svg")].filter(s => s.getBoundingClientRect().height > 100).length,
  };
})()"""
OPEN = "document.querySelectorAll('details').forEach(e => { e.open = true; })"


@pytest.fixture
def files(pages: dict[str, str], tmp_path: Path) -> dict[str, Path]:
    """The pages as files."""
    for language, page in pages.items():
        (tmp_path / f"{language}.html").write_text(page, encoding="utf-8")
    return {language: tmp_path / f"{language}.html" for language in pages}


@pytest.mark.parametrize(("language", "size"), [("en", PHONE), ("zh", PHONE), ("en", DESK)])
def test_a_browser_shows_every_table_and_nothing_wider_than_the_screen(
    pages: dict[str, str], files: dict[str, Path], browser: Browser, language: str, size: tuple[int, int]
) -> None:
    with browser.page(size) as page:
        page.go(files[language])
        assert page.wider_than_the_screen() == []
        page.read(OPEN)
        seen = page.read(READ)
        assert page.wider_than_the_screen() == []
        assert seen["inner"] == seen["scroll"] == size[0]
        assert page.requests() == [files[language].as_uri()] and page.troubles() == []
    assert seen["pictures"] == len(PLOTS)
    assert seen["tables"] == re.findall(r'<table id="([^"]+)"', pages[language]) != []
    wanted = ("differing", "runs", "common", "balancing", "shortfall", "accuracy", "differences", "by_shots", "by_size")
    assert {f"table-{name}" for name in (*wanted, "wins", "tallies", "printed-1", "headroom", "cost")} <= {
        *seen["tables"]
    }
    assert seen["smallest"] >= 8  # pixels of the smallest letters in pictures


def test_the_finding_and_its_whole_picture_are_on_the_first_screen(
    swept: Registry, tmp_path: Path, browser: Browser
) -> None:
    file = tmp_path / "page.html"
    file.write_text(html_text(lay_out(report_content(swept, ["sw"], "separated:rce"), Translator())), encoding="utf-8")
    for size in (DESK, PHONE):
        with browser.page(size) as page:
            page.go(file)
            tops, bottoms = (
                page.read(f"['.finding', '.origin', '#plot-lead svg'].map(s => document.querySelector(s)"
                          f".getBoundingClientRect().{end})") for end in ("top", "bottom")
            )  # fmt: skip
            assert min(tops) > 0 and max(bottoms) <= 900


def test_on_a_phone_results_are_seen_before_one_scrolls_and_names_stay_when_one_does(
    files: dict[str, Path], browser: Browser
) -> None:
    with browser.page(PHONE) as page:
        page.go(files["en"])
        page.read(OPEN)
        for name in ("primary", "endpoints", "accuracy", "differences", "by_shots", "headroom", "tallies"):
            place = f"document.querySelector('#table-{name} tbody tr')"
            first = page.read(f"{place}.querySelector('td').getBoundingClientRect().right")
            assert first <= PHONE[0], name
            page.read(f"document.querySelector('#table-{name}').parentElement.scrollLeft = 10000")
            heads = page.read(f"[...{place}.querySelectorAll('th')].map(e => e.getBoundingClientRect().left)")
            kept = heads if name in ("accuracy", "differences") else heads[:1]  # there n and shots, both narrow
            assert all(0 <= left < 150 for left in kept), (name, heads)


def test_a_link_opens_what_is_folded_and_a_key_unfolds_it(files: dict[str, Path], browser: Browser) -> None:
    with browser.page() as page:
        page.go(files["en"])
        opened = "document.querySelector('#cost').closest('details').open"
        assert page.read(opened) is False
        page.click("nav a[href='#cost']")
        assert page.until(opened) is True
        page.read("document.querySelector('#means').closest('details').firstElementChild.focus()")
        page.press("Enter")
        assert page.until("document.querySelector('#means').closest('details').open") is True


def test_a_browser_shows_it_in_the_dark(files: dict[str, Path], browser: Browser) -> None:
    with browser.page(PHONE, dark=True) as page:
        page.go(files["en"])
        colors = page.read("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    assert colors == ["rgb(20, 24, 29)", "rgb(230, 233, 236)"]


def test_a_browser_draws_it(files: dict[str, Path], tmp_path: Path, browser: Browser) -> None:
    for size in (PHONE, DESK):
        shot = tmp_path / f"{size[0]}.png"
        with browser.page(size) as page:
            page.go(files["zh"])
            page.screenshot(shot)
        with Image.open(shot) as image:
            assert image.size == size
            assert len(image.convert("L").getcolors() or []) > 20  # letters, not a blank page


# Hostile names.

HOSTILE = (
    "<script>document.title = 'owned'</script>", "<img src=x onerror=\"document.title = 'owned'\">",
    "\"><svg onload=\"document.title = 'owned'\">", "</text></svg><script>document.title = 'owned'</script>",
    "[x](javascript:document.title='owned')", "<javascript:document.title='owned'>", "![x](https://e.org/p.png)",
    "[x]: javascript:document.title='owned'", "$\\bad{$", "_private", "font: 10px x", "\x1b]0;owned\x07\u202eb",
)  # fmt: skip
LIVE = """(() => ({
  links: [...document.querySelectorAll("a")].map(a => a.getAttribute("href")).filter(h => !h.startsWith("#")),
  loaded: [...document.querySelectorAll("script, img, iframe, object, embed, link, base, form")].map(e => e.outerHTML),
  handlers: [...document.querySelectorAll("*")].flatMap(e => [...e.attributes]).map(a => a.name)
    .filter(n => n.startsWith("on")), texts: [...document.querySelectorAll("svg text")].map(t => t.textContent),
  title: document.title,
}))()"""
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


@pytest.fixture(scope="module")
def hostile(swept_file: Path, copy_registry, tmp_path_factory: pytest.TempPathFactory, write) -> Content:  # type: ignore[no-untyped-def]
    """A report in whose every label, note and setting something wants to be run."""
    folder = tmp_path_factory.mktemp("hostile")
    registry, chance = Registry(f"sqlite:///{folder / 'r.db'}"), np.random.default_rng(1)
    for place, name in enumerate(HOSTILE):
        scores = {(m, s): chance.choice([0.0, 1.0], 20) for m in ("random", "oracle", "rce") for s in (1, 2)}
        write(registry, f"r{place}", scores, [10, 20], name=name, reward=name, note=name, model=name)
    return report_content(registry, [f"r{place}" for place in range(len(HOSTILE))], "r0:random")


def live(text: str, tmp_path: Path, browser: Browser) -> dict[str, Any]:
    """What is live in a page that a browser has shown without its policy; a script of a name's changes its title."""
    (tmp_path / "page.html").write_text(POLICY.sub("", text), encoding="utf-8")
    with browser.page() as page:
        page.go(tmp_path / "page.html")
        found = dict(page.read(LIVE))
    assert found["title"] != "owned"
    return found


def test_nothing_of_a_hostile_name_is_live_in_a_browser(hostile: Content, tmp_path: Path, browser: Browser) -> None:
    seen = live(html_text(lay_out(hostile, Translator())), tmp_path, browser)
    assert (seen["links"], seen["handlers"], seen["loaded"]) == ([], [], [])
    drawn = "\n".join(seen["texts"])
    for name in HOSTILE[:-1]:
        assert name in drawn
    assert r"\x1b]0;owned\x07\u202eb" in drawn


def test_nothing_of_a_hostile_name_is_live_in_the_markdown_turned_html(
    hostile: Content, tmp_path: Path, browser: Browser
) -> None:
    write_report(hostile, Translator(), tmp_path / "out.md")
    text = (tmp_path / "out.md").read_text(encoding="utf-8")
    made = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    page = f"<!DOCTYPE html><title>report</title><body>{made}</body>"
    seen = live(page, tmp_path, browser)
    assert (seen["links"], seen["handlers"]) == ([], [])
    own = [f'<img src="out.md.files/{name}"' for name in sorted(PLOTS)]
    assert sorted(one[: one.index('" alt') + 1] for one in seen["loaded"] if one.startswith("<img")) == own
    assert len(seen["loaded"]) == len(own)
    for file in (tmp_path / "out.md.files").iterdir():
        tags = {node.tag.rpartition("}")[2] for node in ElementTree.parse(file).iter()}
        assert not tags & {"script", "image", "foreignObject", "a"}


def test_a_page_forbids_scripts_and_all_that_is_outside(hostile: Content, tmp_path: Path, browser: Browser) -> None:
    text = html_text(lay_out(hostile, Translator()))
    assert POLICY.search(text)
    more = "<script>document.body.dataset.probe = 'ran'</script><img src='other.png'></body>"
    (tmp_path / "other.png").write_bytes(b"")
    for policy, ran in ((True, False), (False, True)):
        shown = (text if policy else POLICY.sub("", text)).replace("</body>", more)
        (tmp_path / "page.html").write_text(shown, encoding="utf-8")
        with browser.page() as page:
            page.go(tmp_path / "page.html")
            assert (page.read("document.body.dataset.probe") == "ran") == ran
            assert bool(page.troubles()) != ran
