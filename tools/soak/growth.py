"""A bank of 100,000 demonstrations and a registry of a million predictions: time, memory, and how they grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from tools.bench_registry import LIMIT_S, SHAPES, build, commands, least_seconds
from tools.soak.bank import measure
from tools.soak.topic import Case, Outcome, Topic

MEMORY_MB = 4096
EXPONENT = 1.3
"""The most by which a step may grow: its seconds as a power of the number of demonstrations."""
SIZES = (12_500, 25_000, 50_000, 100_000)
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def topic(short: bool) -> Topic:
    shapes: Mapping[str, tuple[int, int, tuple[int, ...], int, tuple[int, ...]]] = SHAPES
    if short:
        shapes = {"2 runs x 2 methods x 2 shots x 500 questions": (2, 2, (1, 2), 500, (100, 500))}
        cases = [Case("a bank of 300 demonstrations, 20 questions", partial(_here, 300, 20))]
    else:
        cases = [
            Case("a bank that doubles to 100,000 demonstrations, 1,500 questions", partial(_doubling, SIZES, 1_500)),
            Case("a bank of 100,000 demonstrations, 10,000 questions", partial(_bank, 100_000, 10_000)),
        ]
    cases += [Case(f"a registry of {name}", partial(_registry, *sizes)) for name, sizes in shapes.items()]
    cases.append(Case("a query that never ends", _endless))
    return Topic("Growth", cases, _summary)


def _here(demonstrations: int, questions: int, folder: Path) -> Outcome:
    """In this process, which has its libraries already."""
    return Outcome(figures={"seconds": measure(folder, demonstrations, questions)})


def _bank(demonstrations: int, questions: int, folder: Path) -> Outcome:
    seconds = _measured(demonstrations, questions, folder)
    megabytes = seconds.pop("MB")
    faults = [f"{megabytes:,.0f} MB of memory"] if megabytes > MEMORY_MB else []
    return Outcome(faults, {"seconds": seconds, "MB": megabytes})


def _doubling(sizes: Sequence[int], questions: int, folder: Path) -> Outcome:
    rows = []
    for size in sizes:
        (folder / str(size)).mkdir()
        rows.append(_measured(size, questions, folder / str(size)))
    steps = [step for step in rows[0] if step != "MB" and rows[-1][step] >= 0.5]  # less is noise
    exponents = {step: exponent(sizes, [row[step] for row in rows]) for step in steps}
    faults = [f"{step} grows with the power {e:.2f}" for step, e in exponents.items() if e > EXPONENT]
    return Outcome(faults, {"exponents": exponents, "seconds": rows[-1], "MB": [row["MB"] for row in rows]})


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log sizes: 1 is linear."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _measured(demonstrations: int, questions: int, folder: Path) -> dict[str, float]:
    """In a process of its own, whose memory is then that of the work."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.soak.bank", str(folder), str(demonstrations), str(questions)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _registry(
    runs: int, methods: int, shots: tuple[int, ...], questions: int, sizes: tuple[int, ...], folder: Path
) -> Outcome:
    file = folder / "registry.db"
    count = build(file, runs, methods, shots, questions, sizes)
    seconds, faults = {}, []
    for name, (work, _) in commands(file, runs).items():
        seconds[name] = least_seconds(work, 1 if name == "report" else 2)[1]
        if seconds[name] >= LIMIT_S[name]:
            faults.append(f"{name} takes {seconds[name]:.2f} s of the processor, its limit is {LIMIT_S[name]:g} s")
    return Outcome(faults, {"predictions": count, "seconds": seconds})


def _endless(folder: Path) -> Outcome:
    from leverplus_core import LeverplusError, Registry

    with Registry(f"sqlite:///{folder}/registry.db") as registry:
        began = time.monotonic()
        try:
            registry.sql(ENDLESS, seconds=0.5)
        except LeverplusError as e:
            took = time.monotonic() - began
            return Outcome(
                [] if took < 5 and "\n" not in str(e) else [f"stopped after {took:.1f} s"], {"seconds": took}
            )
    return Outcome(["it ended"])


def _summary(found: Mapping[str, Outcome]) -> str:
    parts = [
        "Banks of texts (questions, captions in place of images) were read, encoded by a sentence encoder of one small "
        "layer, drawn pools from, and searched by baselines and a policy; registries were read by four commands. "
        "Seconds are those of one processor, without the start of Python."
    ]
    for case, outcome in found.items():
        figures = outcome.figures
        lines = [f"**{case[0].upper()}{case[1:]}**"]
        if "predictions" in figures:
            lines[0] += f", {figures['predictions']:,} predictions"
        if isinstance(figures.get("seconds"), dict):
            exponents = figures.get("exponents", {})
            taken = {step: s for step, s in figures["seconds"].items() if step != "MB"}
            each = (f"{step} {s:.2f}" + (f" (power {exponents[step]:.2f})" if step in exponents else "")
                    for step, s in taken.items())  # fmt: skip
            lines.append(f"{', '.join(each)}: {sum(taken.values()):.1f} s in all.")
        elif "seconds" in figures:
            lines.append(f"stopped after {figures['seconds']:.1f} s.")
        if "MB" in figures:
            most = figures["MB"] if isinstance(figures["MB"], list) else [figures["MB"]]
            lines.append(f"Largest memory {', '.join(f'{m:,.0f}' for m in most)} MB.")
        parts.append(f"{lines[0]}: {' '.join(lines[1:])}")
    return "\n\n".join(parts)
