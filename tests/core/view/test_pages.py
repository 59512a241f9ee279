from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from starlette.testclient import TestClient

from leverplus_core.records import Image, Prediction, Question
from leverplus_core.registry.imported import ImportedMethod
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.view.app import create_app
from leverplus_core.view.gate import Gate
from leverplus_core.view.query import link
from tests.core.view.conftest import HOSTILE, ID, QUESTIONS, accuracy, question_id

Read = Callable[[str], str]
LIST = "/runs/run1/questions"


class Parsed(HTMLParser):
    """Links and texts of a page, and whether its elements are closed in the order in which they were opened."""

    VOID = ("meta", "link", "img", "input", "br", "line", "circle", "polyline")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert self._open == [], self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.links += [value for key, value in attrs if key in ("href", "src", "action") and value]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"  # of one cell after the other

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def asked(page: Read, **values: object) -> list[str]:
    """The ids of the questions on one page of the list."""
    found = Parsed(page(link("runs", "run1", "questions", **values)))
    rows = [attrs["href"] or "" for tag, attrs in found.tags if tag == "a" and attrs.get("class") == "go"]
    return [parse_qs(urlsplit(row).query)["id"][0] for row in rows]


def test_every_link_of_every_page_leads_to_a_page_and_no_text_becomes_markup(client: TestClient) -> None:
    left, seen = ["/"], set[str]()
    while left and len(seen) < 80:
        address = left.pop(0)
        if address in seen:
            continue
        seen.add(address)
        answer = client.get(address, follow_redirects=True)
        assert answer.status_code == 200, address
        if answer.headers["content-type"].startswith("text/html"):
            found = Parsed(answer.text)
            assert "\x1b" not in answer.text and "\u202e" not in answer.text
            for tag, attrs in found.tags:
                assert not [name for name in attrs if name.startswith("on") or name == "style"], (tag, attrs)
                assert tag != "script" or attrs == {"src": "/static/view.js", "defer": None}
            inside = [urljoin(address, one).partition("#")[0] for one in found.links]
            assert all(one.startswith("/") for one in inside), address
            # One of each kind of page, and a few of each.
            left += sorted(set(inside), key=lambda one: sum(one.split("?")[0] == s.split("?")[0] for s in seen))
    kinds = {address.split("?")[0] for address in seen}
    assert {"/", "/runs", "/runs/run1", "/runs/run1/grid", LIST, "/runs/run1/question", "/picture"} <= kinds


def test_the_leaderboard_is_best_first_and_filters_are_in_the_address(page: Read) -> None:
    words = Parsed(page("/?name=demo")).words.partition("cells")[2]
    assert words.index("zero_shot 0") < words.index(" rce 1 ") < words.index("random 1") < words.index("sft 1")
    assert "60.0" in words and "33.3" in words and "n 120" in words
    only = Parsed(page("/?method=rce&shots=2")).words
    assert "1 cell " in only and "sft 1" not in only and "50.0" in only
    assert "No cell fits these filters" in page("/?method=none")
    compared = Parsed(page("/?name=demo&baseline=random&method=rce&shots=2")).words
    assert "+16.7 [" in compared and "not corrected" in compared
    first = Parsed(page("/?name=demo&sort=accuracy")).words.partition("cells")[2]
    assert first.index("sft 1") < first.index("zero_shot 0")
    assert Parsed(page("/?name=demo&sort=-delta")).words.partition("cells")[2] == words, "compared with nothing"
    assert "50.150" in page("/?source=published")


def test_runs_say_their_state_and_how_far_they_are(page: Read) -> None:
    words = Parsed(page("/runs")).words
    assert "under way run2 ● running 0 of 2 stages encode: images 250 of 1,000" in words
    assert "✓ done" in words and "best" in words and "looks good" in words and "published" in words
    assert "demo" not in Parsed(page("/runs?status=running")).words.partition("run state")[2]
    assert 'data-every="3"' in page("/runs") and 'data-every="3"' in page("/runs/run2")
    assert "data-every" not in page("/runs/run1")


def test_a_run_shows_its_stages_curves_grid_and_settings(page: Read) -> None:
    words = Parsed(page("/runs/run1")).words
    assert "encode ↺ reused 1 min 10 s 1,234 5,678" in words and "evaluate ○ waiting" in words
    # Of the epoch whose policy was kept, not of the last.
    assert "rce loss epoch 4 chosen: 0.2 " in words and "rce accuracy epoch 4 chosen: 0.444 " in words
    assert page("/runs/run1").count('class="ring"') == 2
    assert "commit 0123456789ab, with changes" in words and "torch 2.6" in words and "sampler random" in words
    assert "seed: 3" in words
    assert page("/runs/run1").count("<polyline") == 2
    assert Parsed(page("/runs/demo")).words == words  # by its name as well


def test_the_grid_of_a_sample_leads_to_the_questions_that_were_answered_wrong(page: Read) -> None:
    found = Parsed(page("/runs/run1/grid?n=60"))
    assert re.search("random . 33.3", found.words) and re.search("rce trained . 50.0", found.words)
    assert link("runs", "run1", "questions", where="rce@2:wrong", n=60) in found.links
    assert "Nothing is evaluated yet" in page("/runs/run2/grid") and "Nothing is evaluated" in page(
        "/runs/run2/questions"
    )


def test_logs_of_different_lengths_are_all_shown(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'r.db'}"
    with Registry(url) as registry:
        logs = [
            ImportedMethod(m, "llava", 0, ("log",), "lm-eval", tuple(
                Prediction(m, 0, f"q{i}", f"q{i}", (), "red", "red", 1.0, None) for i in range(n)
            ), (), {}, 1, 0)
            for m, n in (("long", 3), ("short", 2))
        ]  # fmt: skip
        run = registry.record_samples("logs", "vqav2", "exact_match", "lm-eval", logs)
    client = TestClient(create_app(url))
    for address in ("/", f"/runs/{run}", f"/runs/{run}/grid"):
        words = Parsed(client.get(address).text).words
        assert "long" in words and "short" in words, address
    grid = Parsed(client.get(f"/runs/{run}/grid").text).words
    assert "all questions of each log" in grid and "long n = 3 100.0" in grid and "short n = 2 100.0" in grid
    assert "best ★" not in grid, "nothing is the highest where all are equal"
    assert "short" not in Parsed(client.get(f"/runs/{run}/grid?n=3").text).words


def test_questions_by_outcome_and_by_words_in_pages_that_meet(page: Read) -> None:
    both = {"where": ["random@2:right", "rce@2:wrong"]}
    expected = [question_id(i) for i in range(QUESTIONS) if accuracy("random", i) and not accuracy("rce", i)]
    assert asked(page, **both) == expected and len(expected) == 20
    assert asked(page, search="颜色 帽子")[:2] == [ID, "q6"]
    assert asked(page, search="hat color", **both) == [q for q in expected if q != ID and int(q[1:]) % 5 == 0]
    assert asked(page, search="alert(1)", n=60) == [f"q{i}" for i in range(2, 60, 5)]
    every, address = list[str](), LIST
    while address:
        found = Parsed(page(address))
        every += [a["href"] or "" for t, a in found.tags if t == "a" and a.get("class") == "go"]
        address = next((a["href"] or "" for t, a in found.tags if t == "a" and a.get("rel") == "next"), "")
    assert len(every) == len(set(every)) == QUESTIONS
    assert "No question fits" in page(f"{LIST}?search=zebra")


def test_a_question_shows_all_that_was_shown_and_answered(page: Read) -> None:
    words = Parsed(page(link("runs", "run1", "question", id="q0"))).words
    assert "What color is the hat?" in words and "red \u00d7 9" in words and "blue" in words
    assert "generated red Question: why" in words and "copied" in words
    assert "Which animal? cat d1" in words and "samples of 60, 120" in words
    hostile = page(link("runs", "run1", "question", id="q2"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in hostile and r"\x1b[31m\u202e" in hostile
    assert "<script>alert" not in hostile and "<img src=x" not in hostile
    assert "no picture file" in page(link("runs", "run1", "question", id="q3"))
    assert "the file is gone" in page(link("runs", "run1", "question", id="q4"))
    only = page(link("runs", "run1", "question", id="q0", shots=1))
    assert 'id="rce-1"' in only and 'id="rce-2"' not in only and 'id="zero_shot-0"' in only
    listed = page(link("runs", "run1", "question", id="q0", where="zero_shot@0:right"))
    assert 'id="zero_shot-0"' in listed and 'id="rce-2"' in listed, "what the others answered is there as well"


def test_next_and_previous_stay_in_the_list(client: TestClient, page: Read) -> None:
    wanted = {"where": ["random@2:right", "rce@2:wrong"]}  # 3, 9, 15, ...
    found = Parsed(page(link("runs", "run1", "question", id="q9", **wanted)))
    assert "2 of 20" in found.words
    after = next(a["href"] for t, a in found.tags if t == "a" and a.get("rel") == "next")
    moved = client.get(after or "")
    assert moved.status_code == 303 and moved.headers["location"] == link(
        "runs", "run1", "question", **wanted, id="q15"
    )
    up = next(a["href"] or "" for t, a in found.tags if t == "a" and a.get("rel") == "up")
    assert Parsed(page(up)).words.index("q9") < Parsed(page(up)).words.index("q15")
    assert "not in this list of 20" in page(link("runs", "run1", "question", id="q0", **wanted))


@pytest.mark.parametrize(
    ("address", "status", "text"),
    [
        ("/nothing", 404, "There is no such page"),
        ("/runs/nobody", 404, "no run &#39;nobody&#39; in the registry"),
        (f"{LIST}?where=rce", 404, "&#39;rce&#39; is no outcome"),
        (f"{LIST}?where=rcf@2:right", 404, "has no answers of rcf@2"),
        (f"{LIST}?after=x", 404, "is no number"),
        (f"{LIST}?n=99999999999999999999", 404, "is no number"),
        ("/runs/run1/question?id=q999", 404, "answered no question &#39;q999&#39;"),
        ("/runs/run1/question?at=500", 404, "has no question at position 500"),
        ("/runs/run1/grid?n=7", 404, "has no sample of 7"),
        ("/?sort=host", 404, "cannot be sorted by &#39;host&#39;"),
        ("/runs/paper/questions", 404, "is a published table"),
        (f"{LIST}?where=%3Cscript%3E", 404, "&lt;script&gt;"),
        ("/static/../app.py", 404, ""),
        ("/static/%2e%2e/app.py", 404, ""),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_line(client: TestClient, address: str, status: int, text: str) -> None:
    answer = client.get(address)
    assert answer.status_code == status and text in answer.text


def test_an_empty_registry_says_what_to_do_and_one_that_goes_away_is_told(tmp_path: Path) -> None:
    file = tmp_path / "r.db"
    with Registry(f"sqlite:///{file}") as registry:
        client = TestClient(create_app(f"sqlite:///{file}"))
        for address in ("/", "/runs"):
            live = client.get(address).text.partition('<div id="live"')[2]
            assert "leverplus run demo" in live, "it goes away as soon as a run begins"
        registry.begin_run(RunRecord("run1", "new", "f", "d", "m", 0))
        assert "Nothing is evaluated yet" in client.get("/").text and "new" in client.get("/runs").text
    file.unlink()
    answer = client.get("/runs")
    assert answer.status_code == 503 and "no registry at" in answer.text


def test_every_word_that_pages_print_of_data_is_escaped_in_every_place(client: TestClient, url: str) -> None:
    for address in ("/", "/runs", "/runs/run1", "/runs/run1/grid", LIST, link("runs", "run1", "question", id="q2")):
        text = client.get(address).text
        assert not re.search(r"<script(?! src=\"/static/view.js\" defer>)|onerror=alert\(2\)>(?!&)|<img src=x", text), (
            address
        )
    assert HOSTILE not in client.get("/runs/run1").text


def test_what_leverplus_has_not_written_breaks_one_page_and_says_so(url: str, tmp_path: Path) -> None:
    """A registry may come from others: what is no JSON is told as damage, what is other JSON as a page that failed."""
    file = tmp_path / "theirs.db"
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("VACUUM INTO ?", (str(file),))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE runs SET parts = '[\"<b>\"]' WHERE id = 'run1'")
        connection.execute("UPDATE questions SET answers = 'none' WHERE id = 'q2'")
        connection.execute("UPDATE questions SET answers = ? WHERE id = 'q4'", ("[" * 5000 + "]" * 5000,))
    client = TestClient(Gate(create_app(f"sqlite:///{file}"), "127.0.0.1", None), "http://127.0.0.1",
                        raise_server_exceptions=False)  # fmt: skip
    broken = client.get("/runs/run1")
    assert broken.status_code == 500 and "This page cannot be shown" in broken.text and "UndefinedError" in broken.text
    assert "content-security-policy" in broken.headers and client.get("/").status_code == 200
    for name in ("q2", "q4"):
        answer = client.get(f"/runs/run1/question?id={name}")
        assert answer.status_code == 404 and "is damaged: a column that holds JSON" in answer.text


def test_the_oracle_is_told_apart_and_a_column_without_pictures_is_left_out(tmp_path: Path, page: Read) -> None:
    url = f"sqlite:///{tmp_path / 'r.db'}"
    with Registry(url) as registry:
        registry.begin_run(RunRecord("run1", "ours", "f1", "sums", "m", 0))
        registry.record_questions("run1", [Question("q0", "1 + 1?", Image("i0"), ("2",))], [])
        for method in ("random", "oracle"):
            row = Prediction(method, 2, "q0", "i0", (), "2", "2", 1.0, False)
            registry.record_cell_predictions("run1", method, 2, [(0, row)], [1])
    client = TestClient(create_app(url))
    for address in ("/", "/runs/run1", "/runs/run1/grid"):
        words = Parsed(client.get(address).text).words
        assert "oracle saw the answers" in words and "random saw the answers" not in words, address
    assert "picture" not in Parsed(client.get("/runs/run1/questions").text).words
    assert "# picture question" in Parsed(page(LIST)).words
