"""`leverplus sql` ends: by the clock, by the number of rows, and in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leverplus_core.registry.registry import Registry

Cli = Callable[..., tuple[int, str, str]]
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "


@pytest.fixture
def store(tmp_path: Path) -> list[str]:
    url = f"sqlite:///{tmp_path / 'r.db'}"
    Registry(url).close()
    return ["--registry", url]


def test_a_query_that_never_ends_is_stopped_in_one_line(cli: Cli, store: list[str]) -> None:
    code, out, err = cli("sql", ENDLESS + "SELECT count(*) FROM n", "--seconds", "0.2", *store)
    assert (code, out) == (2, "")
    assert err == (
        "leverplus: the query was stopped: it had not ended after 0.2 s. Ask for less, or allow more with --seconds.\n"
    )


def test_a_longer_result_is_cut_with_a_warning(cli: Cli, store: list[str]) -> None:
    code, out, err = cli("sql", ENDLESS + "SELECT i FROM n", "--limit", "3", "--json", *store)
    assert (code, json.loads(out)) == (0, [{"i": 1}, {"i": 2}, {"i": 3}])
    assert err == "leverplus: warning: the result is longer than 3 rows and was cut there: --limit takes more.\n"
    assert cli("sql", ENDLESS + "SELECT i FROM n LIMIT 3", "--limit", "3", *store)[2] == "", "nothing is left out"


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1"])
def test_a_time_that_is_none_is_refused(cli: Cli, store: list[str], seconds: str) -> None:
    code, out, err = cli("sql", "SELECT 1", "--seconds", seconds, *store)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert err.startswith("leverplus: a query cannot be given ")


def test_a_result_wider_than_the_terminal_is_a_block_for_each_row(cli: Cli, store: list[str]) -> None:
    wide = ", ".join(f"'{letter * 30}' AS column_{letter}" for letter in "abc")
    code, out, _ = cli("sql", f"SELECT {wide} UNION ALL SELECT 1, 2.5, NULL", *store)
    assert code == 0 and [line.rstrip() for line in out.splitlines()] == [
        "-- row 1",
        *(f"column_{letter}  {letter * 30}" for letter in "abc"),
        "-- row 2",
        *("column_a  1", "column_b  2.5", "column_c"),
    ]
    assert cli("sql", "SELECT 1 AS a, 2 AS b", *store)[1].split() == ["a", "b", "1", "2"]


def test_csv(cli: Cli, store: list[str]) -> None:
    query = "SELECT 'x, y' AS a, 1 AS b, NULL AS a UNION ALL SELECT '=1+1', 0.25, 'z'"
    assert cli("sql", query, "--csv", *store)[1] == 'a,b,a:2\n"x, y",1,\n\'=1+1,0.25,z\n'
    assert "exclude each other" in cli("sql", query, "--csv", "--json", *store)[2]
