"""Processes: which one this is, whether another has ended, and who holds a lock on a file."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path


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
