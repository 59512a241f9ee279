"""`python -m tools.soak --work FOLDER --output docs/reliability.md`: run what is left, then write the page."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tools.soak.page import render
from tools.soak.topic import TOPICS, finished, load, run


def main() -> int:
    """Exit code 1 where anything broke, 3 where time ran out before every case had run (call it again)."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path(".soak"), help="outcomes of cases; a later soak goes on from it"
    )
    parser.add_argument("--output", type=Path, help="the page to write")
    parser.add_argument("--only", default=",".join(TOPICS), help="topics, separated by commas")
    parser.add_argument("--short", action="store_true", help="the form that the tests run")
    parser.add_argument("--minutes", type=float, default=30, help="start no case after so long")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes
    broken = left = 0
    topics = {name: load(name, options.short) for name in options.only.split(",")}
    for name, topic in topics.items():
        for done, outcome in run(topic, options.work / f"{name}.jsonl", tempfile.TemporaryDirectory, deadline):
            print(f"{name}: {done}: {'; '.join(outcome.faults) or outcome.skipped or 'held'}", flush=True)
    outcomes = {name: finished(options.work / f"{name}.jsonl") for name in topics}
    for name, topic in topics.items():
        broken += sum(bool(outcome.faults) for outcome in outcomes[name].values())
        left += sum(case.name not in outcomes[name] for case in topic.cases)
    page = render(topics, outcomes)
    if options.output:
        options.output.write_text(page)
    print(f"{sum(map(len, outcomes.values()))} cases, {broken} broke, {left} left")
    return 1 if broken else 3 if left else 0


if __name__ == "__main__":
    sys.exit(main())
