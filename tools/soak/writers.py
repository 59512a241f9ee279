"""Many processes write one registry at once, and another reads it: on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import atexit
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from leverplus_core.registry.registry import Registry
from tools.soak import postgres
from tools.soak.comparison import damaged, differ, registry_rows
from tools.soak.kills import SETTINGS, TINY
from tools.soak.launcher import Ended, launcher
from tools.soak.topic import Case, Outcome, Topic

RUNS = 8
EQUAL = 3
ROUNDS: Mapping[str, int] = {
    "eight runs and a reader": 4,
    "three equal runs of one workspace": 4,
    "three equal runs of three workspaces": 4,
    "eight writers that create the registry": 6,
}
TABLE = "| Sample size | Shots | A | B |\n|---|---|---|---|\n| 100 | 1 | 50.1 | 51.2 |\n| 100 | 2 | 52.3 | 49.9 |\n"


def _run(url: str, work: str = "work", seed: int = 0) -> list[str]:
    settings = [word for setting in (*SETTINGS, f"seed={seed}") for word in ("--set", setting)]
    return ["run", *TINY, *settings, "--registry", url, "--work", work]


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="writers")


@cache
def _alone(seeds: int) -> tuple[Counter[tuple[str, str]], int]:
    """The rows that so many runs leave, one after the other, and the prompts that they compute in all."""
    folder, calls = Path(_scratch().name) / str(seeds), 0
    folder.mkdir()
    for seed in range(seeds):
        end = launcher().run(_run("sqlite:///r.db", seed=seed), folder)
        if end.code != 0:
            raise RuntimeError(f"a run fails undisturbed: {end.stderr}")
        calls += _calls(end)
    return registry_rows(f"sqlite:///{folder / 'r.db'}", sharing=seeds > 1), calls


def _calls(end: Ended) -> int:
    found = re.search(r"([\d,]+) model calls", end.stderr)
    return int(found[1].replace(",", "")) if found else 0


def _at_once(commands: Sequence[Sequence[str]], folder: Path) -> list[Ended]:
    numbers = [launcher().start(words, folder) for words in commands]
    return [launcher().wait(number) for number in numbers]


def _failures(ends: Sequence[Ended]) -> list[str]:
    return [f"writer {i} ended with {end.code}: {end.stderr[-500:]}" for i, end in enumerate(ends) if end.code != 0]


def _different_runs(folder: Path, url: str) -> Outcome:
    expected, _ = _alone(RUNS)
    with _reader(url) as reader:
        ends = _at_once([_run(url, seed=seed) for seed in range(RUNS)], folder)
    faults = _failures(ends) + reader.faults
    faults += [] if faults else [*differ("the registry", expected, registry_rows(url, sharing=True)), *damaged(folder)]
    return Outcome(faults, {"writers": RUNS, "reads": reader.reads})


def _equal_runs(folder: Path, url: str) -> Outcome:
    expected, calls = _alone(1)
    ends = _at_once([_run(url) for _ in range(EQUAL)], folder)
    faults = _failures(ends)
    if not faults:
        faults = [*differ("the registry", expected, registry_rows(url)), *damaged(folder)]
        if (computed := sum(map(_calls, ends))) != calls:
            faults.append(f"{computed} prompts were computed where one run computes {calls}")
    waited = sum("waiting for process" in end.stderr for end in ends)
    return Outcome(faults, {"writers": EQUAL, "waited": waited})


def _equal_runs_apart(folder: Path, url: str) -> Outcome:
    expected, _ = _alone(1)
    ends = _at_once([_run(url, f"work{i}") for i in range(EQUAL)], folder)
    faults = _failures(ends)
    faults += [] if faults else [*differ("the registry", expected, registry_rows(url)), *damaged(folder)]
    return Outcome(faults, {"writers": EQUAL})


def _creators(folder: Path, url: str) -> Outcome:
    (folder / "table.md").write_text(TABLE)
    words = ["import", "table", "table.md", "--registry", url, "--name"]
    faults = _failures(_at_once([[*words, f"table {i}"] for i in range(RUNS)], folder))
    with Registry(url) as registry:
        names, cells = {run["name"] for run in registry.runs()}, len(registry.cells())
    if (len(names), cells) != (RUNS, RUNS * 4):
        faults.append(f"{len(names)} tables with {cells} cells are there")
    return Outcome([*faults, *damaged(folder)], {"writers": RUNS})


CASES: Mapping[str, Callable[[Path, str], Outcome]] = dict(
    zip(ROUNDS, (_different_runs, _equal_runs, _equal_runs_apart, _creators), strict=True)
)


class _Reader:
    def __init__(self) -> None:
        self.reads, self.faults = 0, list[str]()


@contextmanager
def _reader(url: str) -> Iterator[_Reader]:
    """Reads what there is over and over while the block runs; what it has seen never goes away."""
    Registry(url).close()
    told, ended = _Reader(), threading.Event()

    def read() -> None:
        seen: set[tuple[Any, ...]] = set()
        with Registry(url, must_exist=True) as registry:
            while not ended.wait(0.05) and not told.faults:
                try:
                    found = {(c["run"], c["method"], c["shots"], c["n"], c["accuracy"]) for c in registry.cells()}
                    for run, method, shots, n, _ in list(found)[:3]:
                        if len(registry.scores(run, method, shots, n).accuracy) != n:
                            told.faults.append(f"a cell of {n} answers was read with others")
                    registry.sql("SELECT status, count(*) FROM runs GROUP BY status")
                except Exception as e:
                    told.faults.append(f"the reader: {e}")
                    return
                if seen - found:
                    told.faults.append(f"the reader saw {len(seen - found)} cells vanish")
                seen, told.reads = found, told.reads + 1

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield told
    finally:
        ended.set()
        thread.join()


@cache
def _postgresql() -> URL:
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(postgres.server())


def _case(what: str, database: str, number: int) -> Case:
    name = f"{what}, {database}, round {number}"

    def trial(folder: Path) -> Outcome:
        url = "sqlite:///r.db"
        if database == "PostgreSQL":
            if reason := postgres.missing():
                return Outcome(skipped=reason)
            url = postgres.new_database(_postgresql(), name)
        else:
            url = f"sqlite:///{folder / 'r.db'}"
        found = CASES[what](folder, url)
        return Outcome(found.faults, {"what": what, "database": database, **found.figures})

    return Case(name, trial)


def topic(short: bool) -> Topic:
    """Writers of each kind on both databases."""
    rounds = {"eight writers that create the registry": 1} if short else ROUNDS
    cases = [
        _case(what, database, number)
        for what, count in rounds.items()
        for database in ("SQLite", "PostgreSQL")
        for number in range(1, count + 1)
    ]
    return Topic("Writers", cases, _summary)


def _summary(found: Mapping[str, Outcome]) -> str:
    rows = [outcome.figures for outcome in found.values() if outcome.figures]
    lines = [
        "Processes that began together wrote one registry. Every one must end well, and the rows must be those that "
        "the same runs leave one after the other. A reader beside eight runs must never fail, see a cell without its "
        "answers, or miss one that it has seen. Equal runs of one workspace must compute together what one computes "
        "alone.",
        "",
        "| what | database | rounds | writers each | reads meanwhile | waited for another |",
        "|---|---|---|---|---|---|",
    ]
    for what, database in dict.fromkeys((row["what"], row["database"]) for row in rows):
        of = [row for row in rows if (row["what"], row["database"]) == (what, database)]
        reads, waited = (sum(row.get(key, 0) for row in of) for key in ("reads", "waited"))
        lines.append(f"| {what} | {database} | {len(of)} | {of[0]['writers']} | {reads or ''} | {waited or ''} |")
    return "\n".join(lines)
