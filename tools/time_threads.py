"""Time a small run of the demo with each way in which torch's threads may wait, alone and two at once.

    python -m tools.time_threads [--rounds N]

The ways are tried in turn, round by round, so that what other programs take is shared out among them; the table has
the median of the seconds that pass (of the slower of two runs) and of the CPU seconds of a run. docs/notebooks.md
quotes it.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = {
    "GNU OpenMP's own": {"GOMP_SPINCOUNT": "300000"},
    "spin 10,000 times": {"GOMP_SPINCOUNT": "10000"},
    "sleep at once": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
"""Name -> the variables that say so; 300,000 times is what GNU OpenMP takes where no variable is set."""
VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
SMALL = ("dataset.train=200", "dataset.validation=40", "evaluation.sizes=[40]")


def timed(way: str, count: int, pictures: Path) -> tuple[float, float]:
    """Seconds until the last of `count` equal runs beside each other has ended, and the CPU seconds of one of them."""
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES} | WAYS[way]
    call = [sys.executable, "-c", "from leverplus_core.cli import main; main()", "run", "demo"]
    call += [word for setting in (*SMALL, f"dataset.cache={pictures}") for word in ("--set", setting)]
    used, began = _cpu(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for i in range(count):
            (place := Path(folder) / str(i)).mkdir()
            quiet = subprocess.DEVNULL
            runs.append(subprocess.Popen(call, cwd=place, env=environment, stdout=quiet, stderr=quiet))
        if any([run.wait() for run in runs]):
            sys.exit(f"a run failed: {' '.join(call)}")
    return time.perf_counter() - began, (_cpu() - used) / count


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as pictures:
        timed("one thread", 1, Path(pictures))  # draws the pictures
        for _ in range(rounds):
            for way in WAYS:
                for count in (1, 2):
                    found.setdefault((way, count), []).append(timed(way, count, Path(pictures)))
    print(f"{os.cpu_count()} CPUs, medians of {rounds}, seconds; load now {os.getloadavg()[0]:.1f}")
    print("| threads between two operations | alone | its CPU | two at once | CPU of each |\n|---|---:|---:|---:|---:|")
    for way in WAYS:
        cells = [statistics.median(column) for count in (1, 2) for column in zip(*found[way, count], strict=True)]
        print(f"| {way} | {' | '.join(f'{cell:.0f}' for cell in cells)} |")


if __name__ == "__main__":
    main()
