"""Text from data on standard output and standard error: as it reads, never as a terminal would act upon it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.text import Text

from leverplus_core.cli import output
from leverplus_core.records import Prediction
from leverplus_core.registry.registry import Registry, RunRecord

Cli = Callable[..., tuple[int, str, str]]
NAME = "\x1b]0;owned\x07[red]n[/red] :bomb: \u202e👩‍👧"
SEEN = r"\x1b]0;owned\x07[red]n[/red] :bomb: \u202e👩‍👧"


@pytest.fixture
def store(tmp_path: Path) -> list[str]:
    """A registry of one run whose name, note, method and answers are hostile."""
    url = f"sqlite:///{tmp_path / 'r.db'}"
    with Registry(url) as registry:
        registry.begin_run(RunRecord("a", NAME, "f-a", "jsonl", "=1+1", 0, note=NAME))
        rows = [(0, Prediction("@SUM(1)", 1, "q0", "i0", (NAME,), NAME, NAME, 0.5))]
        registry.record_cell_predictions("a", "@SUM(1)", 1, rows, [1])
        registry.finish_run("a", "done")
    return ["--registry", url]


def test_a_name_is_shown_and_not_acted_upon(cli: Cli, store: list[str]) -> None:
    code, out, err = cli("leaderboard", *store)
    assert (code, err) == (0, "") and out.startswith(SEEN[:40])
    code, out, err = cli("sql", f'SELECT name AS "[b]{NAME}" FROM runs', *store)
    assert (code, err) == (0, "") and [line.strip() for line in out.splitlines()] == [f"[b]{SEEN}", SEEN]
    assert json.loads(cli("sql", "SELECT name FROM runs", "--json", *store)[1]) == [{"name": NAME}]
    assert "\x1b" not in cli("show", "a", "--question", "q0", *store)[1]


def test_an_error_line_quotes_what_was_typed(cli: Cli, store: list[str]) -> None:
    code, out, err = cli("show", "a\x1b[31m\udcff", "--question", "x", *store)
    assert (code, out) == (2, "") and err.startswith("leverplus: ") and r"a\x1b[31m\udcff" in err
    assert len(err.splitlines()) == 1
    code, _, err = cli("leaderboard", "x" * 50_000, *store)
    assert code == 2 and len(err.splitlines()) == 1 and len(err) < 2000
    code, _, err = cli("leaderboard", "--\x1b" + "y" * 50_000, *store)
    assert code == 2 and r"\x1by" in err and len(err) < 2000


def test_formulas_in_csv_are_text(cli: Cli, store: list[str]) -> None:
    (row,) = csv.DictReader(io.StringIO(cli("leaderboard", "--csv", *store)[1]))
    assert (row["model"], row["method"], row["accuracy"]) == ("'=1+1", "'@SUM(1)", "0.5")


def test_json_of_sql_is_valid_and_keeps_columns_of_one_name(cli: Cli, store: list[str]) -> None:
    out = cli("sql", 'SELECT 1e999 AS x, 2 AS x, 3 AS "x:2", 4 AS x', "--json", *store)[1]
    assert json.loads(out, parse_constant=lambda word: pytest.fail(word)) == [{"x": None, "x:3": 2, "x:2": 3, "x:4": 4}]


@pytest.mark.parametrize(
    ("encoding", "arguments"),
    [("ascii", "leaderboard"), ("cp1252", "show a --question q0"), ("ascii", "leaderboard --json"),
     ("cp1252", "leaderboard --md")],
)  # fmt: skip
def test_an_output_without_the_characters_shows_escapes(store: list[str], encoding: str, arguments: str) -> None:
    code = "import sys; from leverplus_core.cli import main; sys.argv[0] = 'leverplus'; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments.split(), *store],
        env={"PYTHONIOENCODING": f"{encoding}:strict", "PATH": ""}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
    out = done.stdout.decode(encoding)
    if "--json" in arguments:
        assert json.loads(out)[0]["name"] == NAME
    else:
        assert r"\U0001f469" in out.replace("\n", "").replace(" ", "")


def test_what_a_plugin_draws_or_says_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    output.table([], lambda _: Text("drawn\x1b[31m [red]"), json=False)
    output.warn("careful\x1b[31m\n" + "x" * 10_000)
    output.say("[red]said\x9b")
    told = capsys.readouterr()
    assert told.out == "drawn\\x1b[31m [red]\n"
    warned, said = told.err.splitlines()
    assert warned.startswith(r"leverplus: warning: careful\x1b[31m xxx") and len(warned) < 1200
    assert said == r"[red]said\x9b"


def test_a_bar_takes_its_label_as_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    output._stderr.cache_clear()
    try:
        with output.Bars() as bars, bars.task("[red]\x1b]0;owned\x07", 3) as bar:
            bar.advance()
    finally:
        output._stderr.cache_clear()
    assert r"[red]\x1b]0;owned\x07" in capsys.readouterr().err


def test_a_trace_shows_what_its_message_quotes(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.excepthook
    try:
        cli("--version")
        sys.excepthook(ValueError, ValueError("bug\x1b[31m"), None)
    finally:
        sys.excepthook = before
    assert capsys.readouterr().err == "ValueError: bug\\x1b[31m\n"
