"""Damaged inputs over everything that leverplus reads: each is read or refused in one line, soon and in little memory.

A case is a batch of inputs of one kind, tried by two processes beside each other that a watchdog ends when an input
takes longer than `SECONDS`; what may go wrong inside is in `tools.soak.fuzz_surfaces`.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tools.soak.topic import Case, Outcome, Topic

SECONDS = 5.0
START = 60.0
"""Seconds that a process may take until it tries its first input."""
BATCH, SHORT = 1000, 12
SHARES: Mapping[str, int] = {
    "recipe": 24, "overrides": 12, "jsonl": 10, "vqa_json": 8, "candidates": 8, "rl_data": 8, "beams": 6, "table": 6,
    "embeddings": 4, "sql": 6, "metadata": 4, "state": 4,
}  # fmt: skip
"""Surface -> batches of the long form: 100 batches of 1,000 inputs."""
NAMES = {
    "jsonl": "JSON lines", "vqa_json": "VQA files", "rl_data": "rl-data", "sql": "SQL", "metadata": "plugin metadata",
    "state": "own files",
}  # fmt: skip
_ROOT = Path(__file__).parents[2]


def topic(short: bool) -> Topic:
    """In the short form a few inputs of every kind."""
    batches = {name: 1 for name in SHARES} if short else SHARES
    size = SHORT if short else BATCH
    cases = [_case(name, i, size) for name, count in batches.items() for i in range(count)]
    return Topic("Damaged inputs", cases, _summary)


def _case(surface: str, batch: int, size: int) -> Case:
    def run(folder: Path) -> Outcome:
        halves = [(0, size)] if size <= SHORT else [(0, size // 2), (size // 2, size)]
        places = [folder / str(start) for start, _ in halves]
        for place in places:
            place.mkdir()
        with ThreadPoolExecutor(len(halves)) as pool:
            found = list(pool.map(lambda half, place: list(_tried(surface, batch, half, place)), halves, places))
        faults = [fault for half in found for fault in half if isinstance(fault, str)]
        ends = [end for half in found for end in half if not isinstance(end, str)]
        figures = {
            "inputs": size,
            "refused": sum(end["refused"] for end in ends),
            "slowest": max((end["slowest"] for end in ends), default=0),
            "peak": max((end["peak"] for end in ends), default=0),
        }
        return Outcome(faults, figures)

    return Case(f"{surface} {batch}", run)


def _tried(surface: str, batch: int, part: tuple[int, int], folder: Path) -> Iterator[str | dict[str, Any]]:
    """Faults, and what each process that came to its end says of itself; one that hangs or dies is begun again."""
    start, end = part
    while start < end:
        command = [
            sys.executable,
            "-m",
            "tools.soak.fuzz_surfaces",
            surface,
            str(batch),
            str(start),
            str(end),
            str(folder),
        ]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "LEVERPLUS_CACHE": str(folder / "cache"),
            "HF_HUB_OFFLINE": "1",
        }
        at, last = start - 1, ""
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=_ROOT, env=environment
        ) as process:
            for line in _lines(process):
                word, _, rest = line.partition(" ")
                if word == "at":
                    at = int(rest)
                elif word == "fault":
                    yield f"input {rest}"
                elif word == "end":
                    yield dict(json.loads(rest))
                    return
                else:
                    last = rest or line
        if at < start:
            yield f"the process ended before its first input: {last}"
            return
        yield f"input {at} {last}"
        start = at + 1


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """The lines of a process; "died ..." or "hung ..." is the last of one that was not done."""
    assert process.stdout is not None and process.stderr is not None
    rest, errors, patience, done = b"", b"", START, False
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        waiting.register(process.stderr, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(patience)
            if not ready:
                process.kill()
                yield f"hung more than {patience:g} s"
                return
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                if not data:
                    waiting.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    errors = (errors + data)[-2000:]
                else:
                    *whole, rest = (rest + data).split(b"\n")
                    for line in whole:
                        patience, done = SECONDS, line.startswith(b"end")
                        yield line.decode()
    if not done:
        process.wait()
        said = " ".join(errors.decode(errors="replace").split())[-160:]
        yield f"died with exit code {process.returncode}: {said}"


def _summary(found: Mapping[str, Outcome]) -> str:
    inputs: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    slowest, peak = dict[str, float](), dict[str, int]()
    for case, outcome in found.items():
        surface = case.rpartition(" ")[0]
        inputs[surface] += outcome.figures["inputs"]
        refused[surface] += outcome.figures["refused"]
        slowest[surface] = max(slowest.get(surface, 0), outcome.figures["slowest"])
        peak[surface] = max(peak.get(surface, 0), outcome.figures["peak"])
    rows = [
        f"| {NAMES.get(n, n)} | {inputs[n]:,} | {refused[n]:,} | {slowest[n]:.2f} | {peak[n] >> 20:,} |" for n in inputs
    ]
    return f"""{sum(inputs.values()):,} inputs, each made from a good one by wrong values in it (numbers out of range or
of thousands of digits, NaN, nesting, half characters, lists where names stand, anchors, tags) or by damage to its
bytes. An input may end in a result or in an error of one line; anything else, more than {SECONDS:g} seconds, or 2 GB of
memory beyond the program's own, is a fault.

| input | tried | refused | slowest (s) | largest process (MB) |
|---|---|---|---|---|
{chr(10).join(rows)}"""
