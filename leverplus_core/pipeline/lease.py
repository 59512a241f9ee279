"""One process at a time computes a stage: the others wait, and find its result.

The lock is the operating system's, so that a process that is killed leaves none. It lies beside the stages and not in
them, since a stage's folder may be emptied while its lease is held.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from leverplus_core.io import storage_errors
from leverplus_core.processes import this_host


@contextmanager
def lease(folder: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the stage whose folder this is; `waiting` is told once by whom it is held. Raises StorageError where the
    lock cannot be made."""
    from filelock import FileLock, Timeout

    place = folder.parent.parent / "leases" / folder.name
    note = place.with_name(f"{place.name}.json")
    with storage_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{place}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting(_holder(note))
            lock.acquire(poll_interval=0.5)
    try:
        with storage_errors(note):
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
            note.write_text(json.dumps({"pid": os.getpid(), "host": this_host(), "since": since}))
        yield
    finally:
        lock.release()


def held_by(folder: Path) -> str | None:
    """Which process computes the stage of this folder now; None where none does."""
    from filelock import FileLock, Timeout

    place = folder.parent.parent / "leases" / folder.name
    if not place.with_name(f"{place.name}.lock").exists():
        return None
    lock = FileLock(f"{place}.lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return _holder(place.with_name(f"{place.name}.json"))
    lock.release()
    return None


def _holder(note: Path) -> str:
    try:
        held = json.loads(note.read_text())
        return f"process {held['pid']} on {held['host'].partition(':')[0]}, since {held['since']}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # it is being written
        return "another process"
