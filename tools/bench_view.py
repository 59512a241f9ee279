"""Time every page of `leverplus view` on registries of 100,000 predictions, in a temporary folder.

Two shapes: an experiment of several runs with a grid each on 800 questions, and one run with few methods on many
questions, where a list has most to look through. Prints for each page the seconds from its first request to the answer,
by the clock and of the processor, which other programs do not lengthen, and the least by the clock of three more. Exits
with 1 where the first one takes half a second of the processor.

    python -m tools.bench_view
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from pathlib import Path

from starlette.testclient import TestClient

from leverplus_core.view.app import create_app
from leverplus_core.view.gate import Gate
from leverplus_core.view.query import link
from tools.bench_registry import build, record

LIMIT_S = 0.5
SHAPES = {
    "4 runs x 8 methods x 4 shots x 800 questions": (4, 8, (1, 2, 3, 4), 800, (100, 200, 400, 800)),
    "1 run x 2 methods x 1 number of shots x 50,000 questions": (1, 2, (2,), 50_000, (100, 800, 50_000)),
}
TEXTS = ("What color is the {} on the left?", "How many {} are there?", "照片里的{}是什么颜色?", "Where is the {}?")
THINGS = ("hat", "cat", "bus", "kite", "cup", "dog", "sign")


def add_questions(file: Path, count: int) -> None:
    """Texts and answers for the questions that `build` numbers, and the demonstrations that it shows."""
    answers = '["red", "red", "blue", "red", "red", "red", "red", "blue", "red", "red"]'
    with sqlite3.connect(file) as c:
        c.executemany(
            "INSERT INTO questions (dataset_fingerprint, id, text, image_id, answers) VALUES ('world', ?, ?, ?, ?)",
            ((str(2_000_000 + 7 * i), TEXTS[i % 4].format(THINGS[i % 7]), f"COCO_val2014_{i // 2:012d}", answers)
             for i in range(count)),
        )  # fmt: skip
        c.executemany(
            "INSERT INTO demonstrations (dataset_fingerprint, id, text, image_id, answer) "
            "VALUES ('world', ?, 'What is this?', 'COCO_train2014_1', 'a cup')",
            [("131101",), ("274865",)],
        )


def pages(questions: int, shots: int) -> dict[str, str]:
    """What is timed: name -> address."""
    run = record(0).id
    a, b = (f"method0@{shots}:right", f"method1@{shots}:wrong")
    middle, last = str(2_000_000 + 7 * (questions // 2)), questions - 1
    return {
        "leaderboard": "/",
        "leaderboard, sorted and compared": link(name="run 0", baseline="method0", sort="-delta"),
        "runs": "/runs",
        "one run": link("runs", run),
        "grid": link("runs", run, "grid"),
        "questions": link("runs", run, "questions"),
        "questions, last page": link("runs", run, "questions", before=last),
        "questions by outcome": link("runs", run, "questions", where=[a, b]),
        "questions by outcome, last page": link("runs", run, "questions", where=[a, b], before=last),
        "search": link("runs", run, "questions", search="the left cat"),
        "search in Chinese": link("runs", run, "questions", search="颜色"),
        "search that finds nothing": link("runs", run, "questions", search="zebra"),
        "search by outcome": link("runs", run, "questions", search="hat", where=[a, b]),
        "one question": link("runs", run, "question", id=middle),
        "one question of a filtered list": link("runs", run, "question", id=middle, where=[a, b], search="the"),
    }


def seconds(client: TestClient, address: str) -> tuple[float, float]:
    """From request to answer, by the clock and of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    answer = client.get(address)
    took = time.perf_counter() - began, time.process_time() - worked
    if answer.status_code != 200:
        raise SystemExit(f"{address}: {answer.status_code}\n{answer.text}")
    return took


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    slowest = 0.0
    for shape, (runs, methods, shots, questions, sizes) in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "r.db"
            count = build(file, runs, methods, shots, questions, sizes)
            add_questions(file, questions)
            print(f"{shape}: {count:,} predictions, {file.stat().st_size / 1e6:.0f} MB")
            client = TestClient(Gate(create_app(f"sqlite:///{file}"), "127.0.0.1", None), "http://127.0.0.1")
            seconds(client, "/static/view.css")  # the client itself has to start
            for name, address in pages(questions, shots[-1]).items():
                clock, processor = seconds(client, address)
                least = min(seconds(client, address)[0] for _ in range(3))
                slowest = max(slowest, processor)
                print(f"  {name:34}{clock:6.3f} s ({processor:.3f} s of the processor), then {least:.3f} s")
    print(f"slowest page: {slowest:.3f} s of the processor; the limit is {LIMIT_S} s")
    return int(slowest >= LIMIT_S)


if __name__ == "__main__":
    raise SystemExit(main())
