"""Time `leaderboard`, `compare`, `sql` and `report` on a registry of a million predictions, in a temporary folder.

Two shapes: an experiment of many runs with a grid each on 800 questions, and one run on a whole validation split.
Prints the seconds of the work of each command (open, read, compute, draw; the least of several) by the clock and of the
processor, which other programs do not lengthen, and with --process those of the whole command including the start of
Python. Exits with 1 where the work of a command takes longer than its limit: a second of the processor, five for a
report of all runs with its plots.
"""

from __future__ import annotations

import argparse
import io
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console, RenderableType

from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.registry.scores import sample_names
from leverplus_core.report.comparison import compare_rows, compare_table
from leverplus_core.report.document.content import report_content
from leverplus_core.report.document.i18n import Translator
from leverplus_core.report.document.render import write_report
from leverplus_core.report.leaderboard import leaderboard_rows, leaderboard_table
from leverplus_core.statistics import accuracy_interval

LIMIT_S = {"leaderboard": 1.0, "compare": 1.0, "sql": 1.0, "report": 5.0}
QUERY = "SELECT method, shots, count(*), avg(accuracy) FROM predictions GROUP BY method, shots"
"""Reads all predictions."""
GRADES = np.array([0.0, 0.3, 0.6, 0.9, 1.0])
SHAPES = {
    "39 runs x 8 methods x 4 shots x 800 questions": (39, 8, (1, 2, 3, 4), 800, (100, 200, 400, 800)),
    "1 run x 2 methods x 4 shots x 125,000 questions": (1, 2, (1, 2, 3, 4), 125_000, (100, 800, 125_000)),
}


def record(run: int) -> RunRecord:
    recipe = {"dataset": {"name": "okvqa"}}
    return RunRecord(f"run{run:03d}", f"run {run}", "f", "okvqa", "qwen", run, recipe, dataset_fingerprint="world")


def build(file: Path, runs: int, methods: int, shots: tuple[int, ...], questions: int, sizes: tuple[int, ...]) -> int:
    """A registry whose rows are those that evaluation would write, written in bulk; the number of predictions."""
    drawn = np.random.default_rng(0)
    questions_ = [(str(2_000_000 + 7 * i), f"COCO_val2014_{i // 2:012d}") for i in range(questions)]
    hard = drawn.random(questions)
    sample = sample_names("world", questions_, sizes)
    with Registry(f"sqlite:///{file}") as registry:
        for run in range(runs):
            registry.begin_run(record(run))
            registry.finish_run(record(run).id, "done")
    with sqlite3.connect(file) as c:
        for run in range(runs):
            for method in range(methods):
                for s in shots:
                    luck = hard + 0.3 * drawn.standard_normal(questions) + 0.01 * method
                    accuracy = GRADES[np.clip((luck * 5).astype(int), 0, 4)]
                    key = (record(run).id, f"method{method}", s)
                    c.executemany(
                        "INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                        ((*key, q, i, p, '["131101", "274865"]', " a word", "a word", a)
                         for p, ((q, i), a) in enumerate(zip(questions_, accuracy.tolist(), strict=True))),
                    )  # fmt: skip
                    for n in sizes:
                        found = accuracy_interval(accuracy[:n], [image for _, image in questions_[:n]])
                        c.execute(
                            "INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
                            (*key, n, found.mean, found.low, found.high, sample[n]),
                        )
    return runs * methods * len(shots) * questions


def drawn_text(renderable: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(renderable)
    return out.getvalue()


def least_seconds(work: Callable[[], object], times: int = 3) -> tuple[float, float]:
    """Of the clock and of the processor."""
    clock, processor = [], []
    for _ in range(times):
        began, worked = time.perf_counter(), time.process_time()
        work()
        clock.append(time.perf_counter() - began)
        processor.append(time.process_time() - worked)
    return min(clock), min(processor)


def process_seconds(url: str, *words: str) -> float:
    command = [sys.executable, "-c", "from leverplus_core.cli import main; main()", *words, "--registry", url]
    return least_seconds(lambda: subprocess.run(command, check=True, capture_output=True, env=os.environ))[0]


def commands(file: Path, runs: int) -> dict[str, tuple[Callable[[], object], list[str]]]:
    """What the commands do, and their arguments."""
    a, b = "run 0:method1", "run 1:method0" if runs > 1 else "run 0:method0"
    url, page, names = f"sqlite:///{file}", file.with_suffix(".html"), [f"run {i}" for i in range(runs)]

    def leaderboard() -> None:
        with Registry.open_existing(url) as store:
            drawn_text(leaderboard_table(leaderboard_rows(store)))

    def compare() -> None:
        with Registry.open_existing(url) as store:
            drawn_text(compare_table(compare_rows(store, a, b)))

    def sql() -> None:
        with Registry.open_existing(url) as store:
            store.sql(QUERY, 30, 10_000)

    def report() -> None:
        with Registry.open_existing(url) as store:
            content = report_content(store, names, "run 0:method0", ["method1"])
        write_report(content, Translator("en"), page)

    options = ["--baseline", "run 0:method0", "--method", "method1", "-o", str(page)]
    return {
        "leaderboard": (leaderboard, ["leaderboard"]),
        "compare": (compare, ["compare", a, b]),
        "sql": (sql, ["sql", QUERY]),
        "report": (report, ["report", *names, *options]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--process", action="store_true", help="also time the whole commands")
    process = parser.parse_args().process
    slow = False
    for shape, sizes in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "r.db"
            count = build(file, *sizes)
            print(f"{shape}: {count:,} predictions, {file.stat().st_size / 1e6:.0f} MB")
            for name, (work, words) in commands(file, sizes[0]).items():
                clock, processor = least_seconds(work, 1 if name == "report" else 3)
                slow |= processor >= LIMIT_S[name]
                whole = f", whole command {process_seconds(f'sqlite:///{file}', *words):.2f} s" if process else ""
                print(f"  {name}: {clock:.2f} s, {processor:.2f} s of the processor{whole}")
    return int(slow)


if __name__ == "__main__":
    raise SystemExit(main())
