"""mkdocs-material and zensical build the site, which shows pages as GitHub does and loads nothing from elsewhere."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from leverplus_core.parsing import parse_yaml
from tests.browser import PHONE, Browser
from tests.docs import pages

DOCS = [page for page in pages.PAGES if page.parent != pages.ROOT]
BUILDERS = {"mkdocs": ["mkdocs", "build", "--strict"], "zensical": ["zensical", "build", "--strict"]}
COUNTED = ("h1", "h2", "h3", "li", "pre", "table", "td", "th", "img", "strong", "em", "code")


OPENED = """(() => {
  if (document.activeElement.shadowRoot || document.activeElement.matches("input.md-search__input")) return true;
  const search = document.querySelector("input.md-search__input, button.md-search__button");
  search.focus();
  search.click();
  return false;
})()"""
"""The search of either builder has been opened; asked again until its script is there."""
FOUND = "((document.activeElement.shadowRoot ?? document.querySelector('.md-search-result'))?.textContent ?? '')"


class Page(HTMLParser):
    """Elements of an article by name, the texts of its cells, and what the whole page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.cells: list[str] = []
        self.loads: list[str] = []
        self._in_cell = self._in_article = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if tag in ("script", "img", "iframe", "source") and "src" in values:
            self.loads.append(values["src"])
        if tag == "link":
            self.loads.append(values["href"])
        self._in_article |= tag == "article"
        if self._in_article and tag in COUNTED:
            self.count[tag] += 1
        if tag in ("td", "th"):
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_article &= tag != "article"
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += " ".join(data.split())


@pytest.fixture(scope="module", params=BUILDERS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of one of the builders; a warning ends the build."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(pages.ROOT / "docs", folder / "docs")
    shutil.copy(pages.ROOT / "mkdocs.yml", folder)
    command = [sys.executable, "-m", *BUILDERS[request.param]]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "default"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder / "site"


def html(built: Path, page: Path) -> Page:
    path = built / page.relative_to(pages.ROOT / "docs").with_suffix(".html")
    return Page(path.read_text(encoding="utf-8"))


def test_each_page_has_the_tables_lists_and_blocks_that_it_has_on_github(built: Path) -> None:
    """Python-Markdown wants an empty line before a list, and four spaces where CommonMark takes two."""
    other = {}
    for page in DOCS:
        rendered = MarkdownIt("commonmark").enable("table").render(page.read_text(encoding="utf-8"))
        here, there = html(built, page), Page(f"<article>{rendered}</article>")
        differ = {tag: (here.count[tag], there.count[tag]) for tag in COUNTED if here.count[tag] != there.count[tag]}
        cells = [(a, b) for a, b in zip(here.cells, there.cells, strict=False) if a != b]
        if differ or cells:
            other[pages.name(page)] = (differ, cells[:3])
    assert other == {}, other


def test_nothing_is_loaded_from_elsewhere(built: Path) -> None:
    """Neither fonts nor scripts nor styles: who reads the site is known to nobody else."""
    assert list(built.rglob("*.html"))
    for path in built.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert [link for link in Page(text).loads if re.match(r"(https?:)?//", link)] == [], path.name
        assert not re.search(r"<style[^>]*>[^<]*(@import|url\((https?:)?//)", text), path.name
    for path in built.rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(https?:)?//", path.read_text(encoding="utf-8")), path.name


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    """The site behind a server on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(built)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_phone_shows_it_and_its_search_finds_a_word_without_another_site(address: str) -> None:
    with Browser() as browser:
        with browser.page(PHONE, dark=True) as page:
            for name in ("index", "comparison", "python", "registry", "results/demo-rl-report"):
                page.go(f"{address}/{name}.html")
                assert page.wider_than_the_screen() == [], name
        with browser.page() as page:
            page.go(f"{address}/gpu.html")
            page.until(OPENED)
            page.press(*"InfoScore")
            page.until(f"{FOUND}.includes('beam search')")
            assert [request for request in page.requests() if not request.startswith(address)] == []
            assert [trouble for trouble in page.troubles() if not trouble.startswith("info:")] == []


def test_every_page_is_in_the_navigation_once() -> None:
    values, _ = parse_yaml((pages.ROOT / "mkdocs.yml").read_bytes())

    def leaves(entry: object) -> list[str]:
        if isinstance(entry, dict):
            return [leaf for value in entry.values() for leaf in leaves(value)]
        return [leaf for one in entry for leaf in leaves(one)] if isinstance(entry, list) else [str(entry)]

    assert sorted(leaves(values["nav"])) == sorted(p.relative_to(pages.ROOT / "docs").as_posix() for p in DOCS)
    assert [next(iter(section)) for section in values["nav"]] == [
        "Start", "Guides", "Reference", "Results", "Development",
    ]  # fmt: skip
