"""The questions in a report: what is in the file, how large it may be, and what a browser makes of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image as Pil

from leverplus_core.records import Demonstration, Image, Prediction, Question
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.report.document.content import report_content
from leverplus_core.report.document.i18n import LANGUAGES, Translator
from leverplus_core.report.document.layout import lay_out
from leverplus_core.report.document.questions import explorer
from leverplus_core.report.document.render import Page, html_page, html_text
from tests.browser import DESK, PHONE, Browser

LIVE = "</script><img src=x onerror=\"document.title='owned'\">"
TEXTS = ("What color is the hat?", LIVE, "它是什么颜色?", "Which HAT?")
SCORES = {
    ("zero_shot", 0): (0.0, 0.0, 1.0, 1.0),
    ("random", 1): (1.0, 0.0, 1.0, 0.0), ("random", 2): (0.0, 0.0, 1.0, 1.0),
    ("rce", 1): (0.6, 1.0, 0.3, 0.0), ("rce", 2): (1.0, 1.0, 0.0, 0.3),
    ("oracle", 1): (1.0, 1.0, 1.0, 1.0), ("oracle", 2): (1.0, 1.0, 1.0, 1.0),
}  # fmt: skip
BASELINES = [{"name": name} for name in ("zero_shot", "random", "oracle")]
RECIPE = {"name": "demo", "seed": 0, "evaluation": {"baselines": BASELINES}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four questions with pictures, one of which is gone, and two demonstrations, in `r.db`."""
    tmp_path = tmp_path_factory.mktemp("asked")
    registry = Registry(f"sqlite:///{tmp_path / 'r.db'}")
    registry.begin_run(RunRecord("a1", "demo", "f", "d", "m", 0, recipe=RECIPE, dataset_fingerprint="w"))
    for sigma, name in enumerate(("q0", "q1", "q2", "d0", "d1")):
        Pil.effect_noise((300, 150), 20 + sigma).convert("RGB").save(tmp_path / f"{name}.png")
    questions = [
        Question(f"q{i}", text, Image(f"i{i}", str(tmp_path / f"q{i}.png"), f"picture {i}"), ("red", "red", "blue"))
        for i, text in enumerate(TEXTS)
    ]
    shown = [Demonstration(d, "what is it?", Image(d, str(tmp_path / f"{d}.png")), f"a {d}") for d in ("d0", "d1")]
    registry.record_questions("a1", questions, shown)
    for (method, shots), scores in SCORES.items():
        rows = [
            (i, Prediction(method, shots, f"q{i}", f"i{i}", ("d1", "d0")[:shots], f" red\nQuestion:{i}", "red", score))
            for i, score in enumerate(scores)
        ]
        registry.record_cell_predictions("a1", method, shots, rows, [4])
    registry.finish_run("a1", "done")
    registry.close()
    return tmp_path


@pytest.fixture
def asked(folder: Path) -> Registry:
    return Registry(f"sqlite:///{folder / 'r.db'}")


def made(registry: Registry, most_mb: float = 10, language: str = "en") -> Page:
    say, content = Translator(language), report_content(registry, ["a1"])
    return html_page(lay_out(content, say, plots=False), say, explorer(registry, content), most_mb)


def plain(registry: Registry, language: str = "en") -> str:
    say = Translator(language)
    return html_text(lay_out(report_content(registry, ["a1"]), say, plots=False))


def test_every_answer_of_every_method_is_there_as_it_was_recorded(asked: Registry) -> None:
    found = explorer(asked, report_content(asked, ["a1"]))
    assert found is not None
    assert (found.methods, found.shots, found.total) == (("zero_shot", "random", "rce", "oracle"), (1, 2), 4)
    assert (found.methods[found.first], found.methods[found.second]) == ("rce", "random")
    assert [q.id for q in found.questions] == ["q0", "q1", "q2", "q3"]
    first = found.questions[0]
    assert (first.text, first.caption, first.answers) == (TEXTS[0], "picture 0", "red (2), blue (1)")
    assert [(g.method, g.shots, g.accuracy, g.right) for g in first.given] == [
        (0, 0, 0.0, False), (1, 1, 1.0, True), (1, 2, 0.0, False), (2, 1, 0.6, True), (2, 2, 1.0, True),
        (3, 1, 1.0, True), (3, 2, 1.0, True),
    ]  # fmt: skip
    shown = [found.demonstrations[d].answer for d in first.at(2, 2).demonstrations]  # type: ignore[union-attr]
    assert shown == ["a d1", "a d0"]
    assert (first.given[1].answer, first.given[1].raw) == ("red", " red\nQuestion:0")
    assert first.at(0, 2) == first.given[0]  # an answer without demonstrations stands at every number


def test_several_arms_show_their_own_methods_and_their_oracle(swept: Registry) -> None:
    content = report_content(swept, ["sw"], "separated:rce")
    assert [(row["label"], row["run"], row["seed"]) for row in content.shown] == [
        ("separated", "separated0", 0), ("mixed", "mixed0", 0), ("hard", "hard0", 0),
        ("separated · oracle", "separated0", 0), ("mixed · oracle", "mixed0", 0), ("hard · oracle", "hard0", 0),
    ]  # fmt: skip
    found = explorer(swept, content)
    assert found is not None and (found.methods[found.first], found.methods[found.second]) == ("mixed", "separated")
    assert found.seeds == (0, 4) and len(found.questions) == 60
    page = html_page(lay_out(content, Translator(), plots=False), Translator(), found)
    assert "Answers of seed 0, the first of 4." in page.text and page.left_out == []


def test_a_published_table_has_no_questions(table: Registry) -> None:
    assert explorer(table, report_content(table, ["paper"], "paper:Baseline")) is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_does_not_fit_is_left_out_and_said(asked: Registry, language: str) -> None:
    whole = made(asked, language=language)
    pictures = r"data:image/webp;base64,[\w+/=]+"
    # Three questions' pictures and two demonstrations', each once; the fourth question's file is gone.
    assert len(set(re.findall(pictures, whole.text))) == len(re.findall(pictures, whole.text)) == 5
    assert whole.left_out == [Translator(language)("questions_unreadable", count=1)]
    alone, counts = plain(asked, language), []
    for room in (0, 20_000, 40_000, 60_000, 80_000):
        page = made(asked, (len(alone.encode()) + room) / 1e6, language)
        assert len(page.text.encode()) <= len(alone.encode()) + room
        counts.append((page.text.count('class="q"'), len(re.findall(pictures, page.text))))
        for missing in page.left_out if counts[-1][0] else ():
            assert missing in page.text
        assert any("--max-mb" in text for text in page.left_out) == (counts[-1] != (4, 5))
    assert counts == sorted(counts) and counts[0] == (0, 0) and counts[-1] == (4, 5) and len(set(counts)) > 2
    assert made(asked, 0, language).text == alone


def test_long_captions_are_in_the_count(asked: Registry) -> None:
    say, content = Translator(), report_content(asked, ["a1"])
    found, document = explorer(asked, content), lay_out(content, say, plots=False)
    assert found is not None
    long = replace(found, questions=tuple(replace(q, caption='<"a hat">' * 100) for q in found.questions))
    pictures = set()
    for most in range(60_000, 120_000, 2_000):
        text = html_page(document, say, long, most / 1e6).text
        assert len(text.encode()) <= most
        pictures.add(text.count("<img "))
    assert pictures == {0, 1, 2, 3}


def test_the_same_registry_gives_the_same_page(asked: Registry) -> None:
    assert made(asked) == made(asked)


# In a browser.


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    with Registry(f"sqlite:///{folder / 'r.db'}") as registry:
        (folder / "report.html").write_text(made(registry).text, encoding="utf-8")
    return folder / "report.html"


SEEN = """[...document.querySelectorAll("details.q")].filter(e => e.checkVisibility()).map(e => +e.dataset.place)"""


VIEWS = {
    "a=rce&ar=right": [0, 1],  # at the most shots
    "ar=right&b=random&br=wrong": [0, 1],
    "ar=wrong&br=right&s=2": [2, 3],
    "ar=right&s=1": [0, 1],
    "s=1&ar=wrong&br=right": [2],
    "b=zero_shot&br=right": [2, 3],
    "find=hat": [0, 3],
    "find=颜色": [2],
    "find=hat+color": [0],
    "find=picture+1": [1],
    "a=nobody&s=99&ar=maybe": [0, 1, 2, 3],  # what is not known is as if it was not said
}


def test_every_view_is_a_link(file: Path, browser: Browser) -> None:
    with browser.page() as page:
        page.go(file)
        for view, places in VIEWS.items():
            page.go(f"{file.as_uri()}#{view}")
            assert page.until(f"JSON.stringify({SEEN}) === '{json.dumps(places, separators=(',', ':'))}'"), view
            assert page.read("document.querySelector('#q-count').textContent") == f"{len(places)} of 4 questions"
            page.ask("Page.reload")  # at the address that the page has written itself
            page.loaded()
            assert page.read(SEEN) == places, view
        assert page.troubles() == []


def test_one_goes_through_questions_by_keys(file: Path, browser: Browser) -> None:
    opened = "[...document.querySelectorAll('details.q')].filter(e => e.open).map(e => +e.dataset.place)"
    with browser.page(DESK) as page:
        page.go(f"{file.as_uri()}#ar=right")
        page.press("j")
        assert (page.read(opened), page.read("location.hash")) == ([0], "#q=q0&ar=right")
        page.press("j", "j")
        assert page.read(opened) == [1]  # the last of the list
        page.press("k", "1")
        assert (page.read(opened), page.read("location.hash")) == ([0], "#q=q0&ar=right&s=1")
        page.press("/", *"color", "Escape")
        assert page.read(SEEN) == [0]
        assert page.read("document.activeElement.tagName") == "BODY"
        page.press("/", "Enter")
        assert page.troubles() == []


def test_a_question_shows_pictures_demonstrations_and_answers(file: Path, browser: Browser) -> None:
    for size in (DESK, PHONE):
        with browser.page(size, dark=size == PHONE) as page:
            page.go(f"{file.as_uri()}#q=q0")
            text = page.read("document.querySelector('details.q').innerText")
            for wanted in ("What color is the hat?", "red (2), blue (1)", "what is it? a d1", "accuracy 1.00"):
                assert wanted in text
            assert 'cut from " red\\nQuestion:0"' in text
            first = page.read("[...document.querySelectorAll('.card h3')].map(e => e.textContent)")
            assert first[:2] == ["rce", "random"]
            pictures = page.read(
                "Promise.all([...document.querySelectorAll('img')].filter(e => e.checkVisibility())"
                ".map(e => e.decode().then(() => [e.naturalWidth, e.naturalHeight])))"
            )
            assert pictures[0] == [224, 112] and set(map(tuple, pictures[1:])) == {(112, 56)}
            assert page.wider_than_the_screen() == [] and page.troubles() == []
            assert page.requests() == [file.as_uri()]


def test_without_scripts_it_is_a_list_that_opens(file: Path, browser: Browser) -> None:
    with browser.page(PHONE, scripts=False) as page:
        page.go(f"{file.as_uri()}#q-0")
        assert page.read("document.querySelector('details.q').open")
        text = page.read("document.querySelector('details.q').innerText")
        for wanted in ("red (2), blue (1)", "what is it? a d1 · what is it? a d0", "rce", "✓ red 1.0"):
            assert wanted in text
        assert page.read("document.querySelector('#q-bar').checkVisibility()") is False
        assert page.wider_than_the_screen() == []


def test_a_link_to_a_section_and_to_a_question_opens_what_is_folded(file: Path, browser: Browser) -> None:
    with browser.page() as page:
        page.go(f"{file.as_uri()}#q-2")
        assert page.until("document.querySelector('#q-2').checkVisibility()")
        page.click("nav a[href='#configuration']")
        assert page.until("document.querySelector('#configuration').checkVisibility()")


def test_what_is_folded_is_printed_and_questions_only_where_they_are_open(file: Path, browser: Browser) -> None:
    seen = "['#configuration', '#q-0'].map(s => document.querySelector(s).checkVisibility())"
    with browser.page() as page:
        page.go(file)
        assert page.read(seen) == [False, False]
        page.ask("Emulation.setEmulatedMedia", media="print")
        assert page.until(f"{seen}[0]") and page.read(seen) == [True, False]
        page.go(f"{file.as_uri()}#q=q0")
        assert page.until(f"{seen}[1]")


def test_nothing_of_a_hostile_question_is_live(file: Path, browser: Browser) -> None:
    with browser.page() as page:
        page.go(f"{file.as_uri()}#q=q1")
        assert page.read("document.title") != "owned" and page.troubles() == []
        assert LIVE in page.read("document.querySelector('.qq:not(:empty)').closest('#questions').innerText")
        assert page.read("document.querySelectorAll('script').length") == 2
        assert page.read("document.querySelectorAll('[onerror]').length") == 0
    text = file.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy and "'unsafe-inline'" not in policy[1].split("script-src")[1] and "sha256-" in policy[1]
    data = re.search(r'id="questions-data">(.*?)</script>', text, re.S)
    assert data and json.loads(data[1])["questions"][1][0] == "q1"


def test_the_command_says_what_it_left_out(folder: Path, cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    url = f"sqlite:///{folder / 'r.db'}"
    code, _, err = cli("report", "a1", "-o", "small.html", "--max-mb", "0.001", "--registry", url)
    assert code == 0 and "The first 0 of 4 questions; more do not fit into 0.001 MB (--max-mb)." in err
    code, out, _ = cli("report", "a1", "-o", "none.html", "--max-mb", "0", "--registry", url, "--json")
    assert code == 0 and "questions-data" not in (tmp_path / "none.html").read_text(encoding="utf-8")
    assert json.loads(out)["headline"].startswith("No difference was seen between rce and random")
