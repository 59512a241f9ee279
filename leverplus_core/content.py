"""The content of many files by hash, each read once: hashes are kept in the user's cache folder.

A file counts as unchanged while its place, inode, size, and both its times of change are what they were. The second
time (`ctime`) is the system's: who replaces a file cannot set it back, as `cp -p` or `touch` set the first. Reading the
photos of VQAv2 (20 GB) takes minutes, once.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from leverplus_core.errors import DataError
from leverplus_core.pretrained import cache_folder

NAME = "file-hashes.sqlite"
SETTLED = 2.0
"""Seconds after which a change of a file shows in its times, whatever the clock of the file system."""
READERS = 8

_Stamp = tuple[int, int, int, int, int]


def file_hashes(paths: Iterable[str], cache: Path | None = None) -> dict[str, str]:
    """Path -> sha256, in hex, of the file there. `cache` is a folder other than the user's.

    Raises DataError for a file that cannot be read. A cache that cannot be used is passed over.
    """
    stamps = {path: _stamp(path) for path in dict.fromkeys(paths)}
    store = (cache or cache_folder()) / NAME
    known = _known(store, stamps) if stamps else {}
    missing = [path for path in stamps if path not in known]
    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as pool:
        fresh = dict(zip(missing, pool.map(_sha256, missing), strict=True))
    settled = time.time_ns() - int(SETTLED * 1e9)
    _keep(store, {path: (stamps[path], found) for path, found in fresh.items() if stamps[path][3] < settled})
    return {path: known.get(path) or fresh[path] for path in stamps}


def _stamp(path: str) -> _Stamp:
    try:
        found = os.stat(path)
    except (OSError, ValueError) as e:
        raise _unreadable(path, e) from e
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_dev


def _sha256(path: str) -> str:
    try:
        with open(path, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except (OSError, ValueError) as e:
        raise _unreadable(path, e) from e


def _unreadable(path: str, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return DataError(f"{path} cannot be read: {reason}.", "Check the file.")


def _known(store: Path, stamps: Mapping[str, _Stamp]) -> dict[str, str]:
    found: dict[str, str] = {}
    if not os.path.isfile(store):
        return found
    paths = {_name(path): path for path in stamps}
    names = list(paths)
    with suppress(sqlite3.Error), closing(sqlite3.connect(store, timeout=5)) as db:
        for start in range(0, len(names), 500):
            part = names[start : start + 500]
            marks = ",".join("?" * len(part))
            for name, stamp, sha256 in db.execute(f"SELECT * FROM hashes WHERE path IN ({marks})", part):
                if stamp == _text(stamps[paths[name]]):
                    found[paths[name]] = sha256
    return found


def _keep(store: Path, fresh: Mapping[str, tuple[_Stamp, str]]) -> None:
    if not fresh:
        return
    with suppress(sqlite3.Error, OSError):
        store.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(store, timeout=5)) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, stamp TEXT, sha256 TEXT)")
            rows = ((_name(path), _text(stamp), found) for path, (stamp, found) in fresh.items())
            db.executemany("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", rows)


def _name(path: str) -> str:
    """The absolute path as the table holds it: a file's name need not be text."""
    return os.path.abspath(path).encode("utf-8", "backslashreplace").decode()


def _text(stamp: _Stamp) -> str:
    return " ".join(map(str, stamp))
