"""The same recipe gives the same registry, whatever the number of threads, the folders and the hash seed of Python."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tools.soak.topic import Case, Outcome, Topic

SHORT = [
    "dataset.train=30", "dataset.validation=12", "sampler.k=5", "scoring.questions=6",
    "scoring.beam_search={num_beams: 2, shots: 1, expand_top_k: 2}", "scoring.candidates.shots=[1]",
    "scoring.candidates.num_beams=2", "scoring.candidates.retrieval=1", "scoring.candidates.questions=null",
    "selector.width=32", "training.sft.epochs=1", "training.mrt.epochs=1", "evaluation.shots=[1]",
    "evaluation.sizes=[10]", "evaluation.ablations=[]", "evaluation.baselines=[text_image_knn, bank_knn]",
]  # fmt: skip
LONG = [
    "dataset.train=300", "dataset.validation=100", "sampler.k=12", "scoring.questions=20",
    "scoring.candidates.questions=60", "training.rce.epochs=2", "training.grpo.epochs=2", "training.mrt.epochs=2",
    "evaluation.shots=[1, 2]", "evaluation.sizes=[50, 100]",
]  # fmt: skip
"""A demo with a part of its questions and every trainer."""

RUN = "import json, sys; from leverplus_core import Recipe, run; run(Recipe.load('demo', sys.argv[3:]), *sys.argv[1:3])"
CLOCKS = {
    "seconds", "path", "created_at", "started_at", "finished_at", "asked_at", "alive_at", "host", "pid", "git",
    "environment", "threads",
}  # fmt: skip
"""What says when and where a run was, in columns and in the JSON of columns: all others are its result."""
TOLERANCE = 1e-3
"""Of numbers, where the number of threads differs: sums of single precision then add up in another order."""
NEAR_TIES = 1e-3
"""Share of predictions that may show other demonstrations then: two that are as good to the last bits change places."""


def topic(short: bool) -> Topic:
    if short:
        trials = {
            "two threads, folders and hash seeds at once": partial(_trial, SHORT, threads=2, hash_seed=1, here=True)
        }
    else:
        trials = {
            "one thread or two": partial(_trial, LONG, threads=2),
            "two folders and two hash seeds": partial(_trial, LONG, hash_seed=1, name="a longer name, with an ä"),
        }
    return Topic("The same result again", [Case(name, run) for name, run in trials.items()], _summary)


def _trial(
    overrides: Sequence[str], folder: Path, threads: int = 1, hash_seed: int = 0, name: str = "b", here: bool = False
) -> Outcome:
    """Run the recipe twice, with something changed, and compare the registries row by row; the first one `here`, in
    this process, where its libraries are imported already."""
    first = _run(overrides, folder / "a", 1, None if here else 0)
    second = _run(overrides, folder / name, threads, hash_seed)
    ties = near_ties(first, second) if threads > 1 else 0
    faults, furthest = differences(first, second, TOLERANCE if threads > 1 else 0.0, ties)
    if ties > NEAR_TIES * len(first["predictions"]):
        faults.append(f"{ties} of {len(first['predictions'])} predictions show other demonstrations")
    return Outcome(faults, {"rows": sum(map(len, first.values())), "furthest": furthest, "ties": ties})


def _run(
    overrides: Sequence[str], folder: Path, threads: int, hash_seed: int | None
) -> dict[str, list[dict[str, Any]]]:
    folder.mkdir()
    registry, settings = f"sqlite:///{folder}/registry.db", [*overrides, f"threads={threads}"]
    if hash_seed is None:
        from leverplus_core import Recipe, run

        run(Recipe.load("demo", settings), registry, folder / "work")
        return contents(registry)
    place = {"PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    subprocess.run(
        [sys.executable, "-c", RUN, registry, str(folder / "work"), *settings],
        check=True,
        capture_output=True,
        env={**os.environ, **place},
    )
    return contents(registry)


def contents(url: str) -> dict[str, list[dict[str, Any]]]:
    """Table -> its rows, in the order of their keys, without what depends on when and where they were written."""
    from leverplus_core import Registry
    from leverplus_core.registry.tables import metadata

    found = {}
    with Registry.open_existing(url) as registry:
        for table in metadata.sorted_tables:
            keys = ", ".join(column.name for column in table.primary_key) or "1"
            columns, rows = registry.sql(f"SELECT * FROM {table.name} ORDER BY {keys}")
            named = (dict(zip(columns, row, strict=True)) for row in rows)
            found[table.name] = [{k: _value(v) for k, v in row.items() if k not in CLOCKS} for row in named]
    return found


def _value(value: Any) -> Any:
    """A value of a row; JSON as what it says, without clocks."""
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return value
    return json.loads(value, object_hook=lambda found: {k: v for k, v in found.items() if k not in CLOCKS})


def near_ties(first: Mapping[str, list[Any]], second: Mapping[str, list[Any]]) -> int:
    """Remove, from both, the predictions that were made with other demonstrations; how many there are."""
    pairs = list(zip(first["predictions"], second["predictions"], strict=True))
    apart = {i for i, (one, other) in enumerate(pairs) if one["demonstrations"] != other["demonstrations"]}
    for tables in (first, second):
        tables["predictions"][:] = [row for i, row in enumerate(tables["predictions"]) if i not in apart]
    return len(apart)


def differences(
    first: Mapping[str, list[Any]], second: Mapping[str, list[Any]], tolerance: float, ties: int = 0
) -> tuple[list[str], float]:
    """A line for the first difference of each table, and the largest one, relative, between numbers that pass; counts
    of prompts may differ by `ties`."""
    found: list[str] = []
    furthest = 0.0

    def compare(one: Any, other: Any, where: str) -> None:
        nonlocal furthest
        if type(one) is not type(other):
            raise ValueError(f"{where}: {one!r} / {other!r}")
        if isinstance(one, dict) and one.keys() == other.keys():
            for key in one:
                compare(one[key], other[key], f"{where}.{key}")
        elif isinstance(one, list) and len(one) == len(other):
            for i, (a, b) in enumerate(zip(one, other, strict=True)):
                compare(a, b, f"{where}[{i}]")
        elif isinstance(one, float) and math.isfinite(one) and one != other:
            apart = abs(one - other) / max(abs(one), 1.0)
            if apart > tolerance:
                raise ValueError(f"{where}: {one!r} / {other!r}")
            furthest = max(furthest, apart)
        elif one != other and not (isinstance(one, int) and _counts(where) and abs(one - other) <= ties):
            raise ValueError(f"{where}: {one!r} / {other!r}")

    for table in sorted(first.keys() | second.keys()):
        try:
            compare(first.get(table), second.get(table), table)
        except ValueError as e:
            found.append(str(e)[:300])
    return found, furthest


def _counts(where: str) -> bool:
    """Whether the value at this place of a row counts prompts."""
    return ".cost." in where or where.endswith("prompts")


def _summary(found: Mapping[str, Outcome]) -> str:
    lines = [
        f"- {case}: {outcome.figures['rows']:,} rows"
        + (f", numbers at most {outcome.figures['furthest']:.0e} apart" if outcome.figures["furthest"] else ", equal")
        + (f", {outcome.figures['ties']} near-ties decided otherwise" if outcome.figures["ties"] else "")
        for case, outcome in found.items()
    ]
    text = (
        "The demo with a part of its questions was run twice and its registries were compared, row by row: "
        "cells, predictions, training curves, questions, stages and fingerprints, all but clocks and paths. Folders "
        "and hash seeds change nothing, to the last bit. With another number of threads a sum of single precision adds "
        f"up in another order: probabilities and losses may then differ by {TOLERANCE:g} of their size, and of two "
        f"demonstrations that are equally good to the last bits the other may be shown, for at most {NEAR_TIES:.1%} of "
        "the predictions; all other answers are equal."
    )
    return "\n".join([text, "", *lines])
