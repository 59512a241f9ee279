from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from leverplus_core.view.query import link
from tests.browser import DESK, PHONE, Browser, Page
from tests.core.view.conftest import ID, Served

LIST = link("runs", "run1", "questions")
PAGES = {
    "leaderboard": "/", "compared": link(name="demo", baseline="random"), "runs": "/runs", "running": "/runs/run2",
    "run": "/runs/run1", "grid": "/runs/run1/grid?n=60", "list": LIST, "nothing": f"{LIST}?search=zebra",
    "question": link("runs", "run1", "question", id=ID), "hostile": "/runs/run1/question?id=q2&shots=all",
    "error": "/runs/run1/question?at=500",
}  # fmt: skip
FAINT = """(() => {
  const paint = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const parts = color => {
    paint.fillStyle = color; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const seen = element.getClientRects().length && !element.closest("noscript, option, .unseen");
    if (!walker.currentNode.data.trim() || !seen) continue;
    const chain = [];
    for (let e = element; e; e = e.parentElement) chain.unshift(e);
    let below;
    for (const e of chain) below = parts(getComputedStyle(e).backgroundColor);
    const style = getComputedStyle(element);
    const text = parts(element.closest("svg") ? style.fill : style.color);
    const [high, low] = [light(below), light(text)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) found.push([walker.currentNode.data.trim().slice(0, 40), element.className, ratio]);
  }
  return found;
})()"""
"""Texts whose contrast to what is painted behind them is below 4.5:1 (WCAG 2, 1.4.3)."""

FORBIDDEN = '<img src="x:" onerror="window.bad = 1"><style>h1 { color: red }</style><p style="color: red">'


@contextmanager
def opened(browser: Browser, served: Served, **more: object) -> Iterator[Page]:
    with browser.page(**more) as page:  # type: ignore[arg-type]
        page.go(f"{served.address}/?token={served.token}")
        assert page.read("location.search") == ""
        yield page


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_every_page_fits_can_be_read_and_complains_of_nothing(
    browser: Browser, served: Served, size: tuple[int, int], dark: bool
) -> None:
    with opened(browser, served, size=size, dark=dark) as page:
        for name, address in PAGES.items():
            page.go(served.address + address)
            assert page.read("document.documentElement.scrollWidth - innerWidth") <= 0, name
            assert page.wider_than_the_screen() == [], name
            assert page.read(FAINT) == [], name
            assert page.read("document.querySelectorAll('h1').length") == 1, name
            assert page.read("[...document.querySelectorAll('select, input')].every(e => e.labels.length)"), name
            assert page.read("[...document.images].every(e => e.alt)"), name
            ids = page.read("[...document.querySelectorAll('[id]')].map(e => e.id)")
            assert len(ids) == len(set(ids)), name
            troubles = [one for one in page.troubles() if name != "error" or "404" not in one]  # the page itself is one
            assert troubles == [], name
        assert all(one.startswith(served.address) for one in page.requests())


def test_on_a_phone_the_numbers_of_the_leaderboard_need_no_scrolling(browser: Browser, served: Served) -> None:
    with opened(browser, served, size=PHONE) as page:
        cells = "[...document.querySelectorAll('.board td, .board th')]"
        out = f"{cells}.filter(e => e.getBoundingClientRect().right > innerWidth)"
        assert page.read("document.querySelectorAll('.board .value').length") > 5
        assert page.read(f"{out}.map(e => e.outerHTML)") == []
        # The number stands first, its method beside it.
        assert page.read(
            "[...document.querySelectorAll('.board tbody tr')].every(row => row.querySelector('.value').offsetLeft <"
            " row.querySelector('.method').offsetLeft)"
        )


def test_pictures_are_seen(browser: Browser, served: Served) -> None:
    with opened(browser, served) as page:
        page.go(served.address + link("runs", "run1", "question", id="q0"))
        page.until("document.images[0].naturalWidth == 640 && document.images[1].naturalWidth == 107")


def test_a_list_is_gone_through_by_keys_alone(browser: Browser, served: Served) -> None:
    def place() -> str:
        return str(page.read("location.pathname + location.search"))

    with opened(browser, served) as page:
        wanted = {"where": ["random@2:right", "rce@2:wrong"]}  # 3, 9, 15, ...
        page.go(served.address + link("runs", "run1", "questions", **wanted))
        page.press("Tab")
        assert page.read("document.activeElement.className") == "skip"
        page.press("j", "j", "j", "k")
        assert page.read("document.activeElement.textContent") == "Where is the hat?"
        assert page.read("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        page.press("Enter")
        page.loaded()
        assert place() == link("runs", "run1", "question", **wanted, id="q9")
        page.press("j")
        page.loaded()
        assert place() == link("runs", "run1", "question", **wanted, id="q15")
        page.press("k")
        page.loaded()
        assert place().endswith("id=q9")
        page.press("u")
        page.loaded()
        assert place() == link("runs", "run1", "questions", **wanted, after=8)
        page.press("/")
        page.press("j", "u", "?")
        assert page.read("document.activeElement.value") == "ju?" and "questions" in place()
        page.press("Escape", "?")
        assert page.read("document.querySelector('#keys').open")
        page.go(served.address + LIST)
        page.press("n")
        page.loaded()
        assert place() == link("runs", "run1", "questions", after=49)
        assert page.troubles() == []


def test_a_page_follows_a_run_and_stays_where_it_was_scrolled_to(browser: Browser, served: Served) -> None:
    with opened(browser, served, size=(390, 300)) as page:
        page.go(f"{served.address}/runs/run2")
        page.read("window.kept = true, document.querySelector('#stages + .scroll').scrollLeft = 40, scrollTo(0, 150)")
        served.registry.beat("run2", {"encode": 12.0}, {"encode": {"label": "images", "done": 333, "total": 1000}})
        page.until("document.body.textContent.includes('333 of 1,000')")
        assert page.read("[window.kept, scrollY, document.querySelector('#stages + .scroll').scrollLeft]") == [
            True,
            150,
            40,
        ]
        assert page.troubles() == []


def test_pages_work_without_scripts(browser: Browser, served: Served) -> None:
    with opened(browser, served, scripts=False) as page:
        page.go(served.address + link("runs", "run1", "questions", where="random@2:right"))
        page.click("a.go")
        page.loaded()
        page.click("a[rel=next]")
        page.loaded()
        assert page.read("location.search").endswith("id=q3") and page.troubles() == []


def test_the_policy_forbids_what_no_page_does(browser: Browser, served: Served) -> None:
    with opened(browser, served) as page:
        page.read(f"document.body.insertAdjacentHTML('beforeend', {json.dumps(FORBIDDEN)})")
        page.read("import('data:text/javascript,window.bad = 2').catch(() => 0)")
        page.read("fetch('https://example.com').catch(() => 0)")
        assert page.read("window.bad") is None
        assert any("Content Security Policy" in trouble for trouble in page.troubles())
