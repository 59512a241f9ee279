"""What the soak is made of: topics, their cases, and what a case found."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Every topic is a module of this package with a function `topic(short: bool) -> Topic`; in the order of the page.
TOPICS = ("kills", "writers", "fuzz", "parts", "pictures", "texts", "growth", "determinism")


@dataclass(frozen=True)
class Outcome:
    """What a case found: `faults` is empty when everything held; `figures` are what the page adds up or shows."""

    faults: Sequence[str] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    skipped: str = ""  # the reason, where the machine lacks something


@dataclass(frozen=True)
class Case:
    """One trial, repeatable from its name alone: `run(folder)` gets an empty folder of its own."""

    name: str
    run: Callable[[Path], Outcome]


@dataclass(frozen=True)
class Topic:
    """Cases and how their outcomes are told: `summary(outcomes by case name)` is Markdown, without the faults."""

    title: str
    cases: Sequence[Case]
    summary: Callable[[Mapping[str, Outcome]], str]


def load(name: str, short: bool) -> Topic:
    """The topic of that name; `short` is the form that the tests run, in seconds."""
    topic: Topic = importlib.import_module(f"tools.soak.{name}").topic(short)
    return topic


def finished(file: Path) -> dict[str, Outcome]:
    """The outcomes that an earlier soak wrote; a line cut by a kill is as if it had not been written."""
    if not file.exists():
        return {}
    outcomes = {}
    for line in file.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        name = record.pop("case")
        outcomes[name] = Outcome(**record)
    return outcomes


def run(
    topic: Topic, file: Path, scratch: Callable[[], Any], deadline: float | None = None
) -> Iterator[tuple[str, Outcome]]:
    """Run the cases that `file` lacks and append to it, each in a `scratch()`; start none after `deadline`."""
    done = finished(file)
    for case in topic.cases:
        if case.name in done:
            continue
        if deadline is not None and time.monotonic() > deadline:
            return
        with scratch() as folder:
            outcome = case.run(Path(folder))
        with file.open("a") as lines:
            lines.write("\n" + json.dumps({"case": case.name, **asdict(outcome)}))  # the line before may have been cut
        yield case.name, outcome
