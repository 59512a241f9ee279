"""Links lead somewhere: to a file, to a heading of it; those to other sites have a form that can lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs import pages

PATHS = re.compile(r"(leverplus_core|leverplus_\w+|plugins|tests|tools|docs)/[\w./-]*\w/?")


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    wrong = []
    for link in pages.links(page):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not target.exists() or pages.ROOT not in target.parents:
            wrong.append(f"{link}: no such file")
        elif parts.fragment and parts.fragment not in pages.anchors(target):
            wrong.append(f"{link}: no such heading")
    assert wrong == []


@pytest.mark.parametrize("page", [p for p in pages.PAGES if p.parent != pages.ROOT], ids=pages.name)
def test_a_page_of_the_site_links_to_nothing_outside_of_it(page: Path) -> None:
    docs = pages.ROOT / "docs"
    inside = [urlsplit(link) for link in pages.links(page)]
    paths = [(page.parent / unquote(parts.path)).resolve() for parts in inside if not parts.scheme and parts.path]
    assert [path for path in paths if docs not in path.parents] == []


def test_links_to_other_sites_are_https_and_well_formed() -> None:
    outside = [urlsplit(link) for page in pages.PAGES for link in pages.links(page) if urlsplit(link).scheme]
    assert outside
    wrong = [
        parts.geturl()
        for parts in outside
        if parts.scheme != "https" or not re.fullmatch(r"[\w-]+(\.[\w-]+)+", parts.netloc) or " " in parts.path
    ]
    assert wrong == []


@pytest.mark.parametrize("page", [p for p in pages.PAGES if not pages.is_recorded(p)], ids=pages.name)
def test_files_of_the_repository_that_a_page_names_exist(page: Path) -> None:
    """Those of other projects stand on the page that compares. A room is named without its folder, as is a folder of
    core in its description; a word in capitals stands for others."""
    if page.name == "comparison.md":
        return
    named = [span for span in pages.spans(page) if PATHS.fullmatch(span) and not re.search("[A-Z]{4}", span)]
    roots = [pages.ROOT, pages.ROOT / "leverplus_core", *(pages.ROOT / "plugins").iterdir()]
    assert [path for path in named if not any((root / path).exists() for root in roots)] == []
