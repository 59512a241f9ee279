"""Processes: which one this is, whether another has ended, who holds a lock on a file, and how many threads compute."""

from __future__ import annotations

import math
import os
import platform
import sys
from functools import cache
from pathlib import Path

MOST_THREADS = 16
"""Of torch where nobody says a number: the layers of small models are too small to be shared out among more."""
SPINS = "10000"
"""How often a thread of GNU OpenMP looks for work before it sleeps."""
QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""How many CPUs the container may use, as `microseconds period` or `max period` (Linux, cgroup v2)."""


@cache
def this_host() -> str:
    """The name of this machine and, after a colon where there is one, of the container whose process ids these are."""
    try:
        inside = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        inside = ""
    return f"{platform.node()}:{inside}".rstrip(":")


def has_ended(host: str, pid: int) -> bool:
    """Whether a process is known to have ended; False where it cannot be known, as on another host."""
    if host != this_host():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's
        return False
    try:
        # A container without an init process keeps what was killed in its list, as a zombie.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


def named(pid: int) -> str:
    """`process 17 (python)`, or without the name where the system does not tell it."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        name = ""
    return f"process {pid} ({name})" if name else f"process {pid}"


def lock_holder(file: Path) -> str:
    """Which other process holds a lock on a SQLite file or the files beside it, as a phrase; `another program` where
    the system does not tell."""
    numbers = set()
    for beside in (file, file.with_name(f"{file.name}-shm"), file.with_name(f"{file.name}-wal")):
        try:
            numbers.add(beside.stat().st_ino)
        except OSError:
            continue
    try:
        rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        rows = []
    # A row is "1: POSIX ADVISORY WRITE pid major:minor:inode start end"; one that waits has "->" after its number.
    # Readers hold shared locks; what keeps a writer out is another's write lock.
    held = [row for row in rows if "->" not in row and len(row) >= 6 and int(row[5].rpartition(":")[2]) in numbers]
    pids = {int(row[4]) for row in held if row[3] == "WRITE"} - {os.getpid(), -1, 0}
    return " and ".join(map(named, sorted(pids))) or "another program"


def usable_cpus() -> int:
    """CPUs that this process may use: those of its affinity, and no more than its container has time of."""
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        return max(1, min(known, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max"
        return known


def let_threads_sleep() -> None:
    """Have the threads of torch sleep soon after an operation instead of spinning for milliseconds.

    GNU OpenMP, which torch's wheels bring, lets them spin so as to begin the next operation at once. The small models
    of leverplus do Python's work between two operations, so that threads spin nearly always, and runs side by side take
    each other's CPUs. SPINS are some tens of microseconds: enough where one operation follows on the other
    (`tools/time_threads.py` times it). OpenMP reads the variable as torch is imported: without effect afterwards, and
    where a user has set it or `OMP_WAIT_POLICY`.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def set_threads(wanted: int | None) -> None:
    """Set torch's threads to `wanted`. None: its own choice, a thread a core or what `OMP_NUM_THREADS` says, but
    without that variable at most `usable_cpus()` and MOST_THREADS. Torch is imported only where there is something to
    set."""
    most = min(usable_cpus(), MOST_THREADS)
    if wanted is not None or ("OMP_NUM_THREADS" not in os.environ and most < (os.cpu_count() or 1)):
        import torch

        torch.set_num_threads(wanted or min(torch.get_num_threads(), most))
