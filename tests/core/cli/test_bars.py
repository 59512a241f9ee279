"""Bars on a terminal of 80 columns, without color, and as lines of a file."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from leverplus_core.cli import bars, output
from leverplus_core.cli.bars import Lines, Task, Terminal, screen, span
from leverplus_core.progress import TimedBar


def test_a_time_is_written_in_one_unit() -> None:
    assert [span(s) for s in (0.4, 89, 90, 5399, 5400, 172_799, 172_800)] == [
        "0 s", "89 s", "2 min", "90 min", "1.5 h", "48.0 h", "2.0 days",
    ]  # fmt: skip


def test_a_bar_says_what_is_left_once_told_and_else_what_it_has_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    task = Task("evaluate", 8000)
    assert (task.time(), task.steps()) == ("", "0/8,000")
    now[0] += 12
    assert task.time() == "12 s so far"
    task.ends, task.done = now[0] + 600, 1200
    assert (task.time(), task.steps()) == ("about 10 min left", "1,200/8,000")
    now[0] += 60  # it counts down by itself
    assert task.time() == "about 9 min left"
    task.more = True
    assert task.time() == "9 min and more left"
    now[0] += 700  # longer than was said
    assert task.time() == "13 min so far"


def _terminal(width: int, monkeypatch: pytest.MonkeyPatch, no_color: bool) -> tuple[output.Bars, io.StringIO]:
    monkeypatch.setenv("NO_COLOR", "1" if no_color else "")
    monkeypatch.setenv("TERM", "xterm-256color")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, height=24)
    drawn = output.Bars()
    drawn.screen = screen(console, lambda line: console.print(line))
    assert isinstance(drawn.screen, Terminal)
    return drawn, file


@pytest.mark.parametrize("width", [60, 80, 100])
def test_two_bars_fit_the_terminal_and_only_the_labels_give_way(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, file = _terminal(width, monkeypatch, no_color=True)
    with drawn, drawn.task("stage 3 of 9: choose_baseline", 9) as outer:
        outer.advance(2)
        assert isinstance(outer, TimedBar)
        outer.left(2.5 * 3600, more=True)
        with drawn.task("log-probabilities of the answers, " + "x" * 40, 102_400) as inner:
            inner.advance(12_288)
            drawn.screen._progress.refresh()
    text = file.getvalue()
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3[0-8]|9\d)", text)  # no color
    lines = [line for part in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text).split("\n") for line in part.split("\r")]
    assert max(map(len, lines)) <= width
    assert any(line.startswith("  log-prob") and "… " in line and "12,288/102,400" in line for line in lines)
    whole = "stage 3 of 9: choose_baseline" if width > 60 else "stage 3 of"
    assert any(line.startswith(whole) and " 2/9 " in line and "2.5 h and more left" in line for line in lines)


def test_colors_are_drawn_where_nobody_refuses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, file = _terminal(80, monkeypatch, no_color=False)
    with drawn.task("stage 1 of 2: encode", 2) as bar:  # without `with`: it is drawn while the task lasts
        bar.advance()
        drawn.screen._progress.refresh()
    assert re.search(r"\x1b\[38;", file.getvalue())


def test_a_file_gets_a_line_a_minute_and_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    said: list[str] = []
    drawn = output.Bars()
    drawn.screen = screen(Console(file=io.StringIO()), said.append)
    assert isinstance(drawn.screen, Lines)
    with drawn, drawn.task("stage 2 of 3: evaluate", 3) as outer, drawn.task("answers", 8000) as inner:
        outer.advance()
        for _ in range(13):
            now[0] += 10
            inner.advance(100)
            outer.left(3600 - now[0], more=False)
        drawn.say("half of it")
    assert said == [
        "stage 2 of 3: evaluate 1/3, answers 600/8,000, about 59 min left",
        "stage 2 of 3: evaluate 1/3, answers 1,200/8,000, about 58 min left",
        "half of it",
    ]


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(screen(Console(file=io.StringIO(), force_terminal=True), print), Lines)
