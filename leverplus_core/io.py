"""Files that are whole or absent, each artifact beside its provenance.

A stage writes into its own folder, named by the stage and its fingerprint; `provenance.json` is written last, so
that a folder which has one is finished. Fingerprints are sha256 of canonical JSON.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from leverplus_core.errors import DataError, StorageError
from leverplus_core.parsing import LARGEST, Unreadable, parse_json

SCRATCH = ".*.[0-9]*"
"""The files that `atomic_write` writes before they take their names: the name between a dot and a process id."""


# json.dumps would make an encoder for each call.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text."""
    return _CANONICAL.encode(value)


def fingerprint(value: object) -> str:
    """The first 16 hex digits of sha256 over `canonical(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


_UNWRITABLE = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP,
}  # fmt: skip


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the failures of a disk into one line: full, read-only, not permitted, a name that no file can have."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"no room left to write {path}.", "Free some space and run the same command.") from e
        if e.errno in _UNWRITABLE or (e.errno == errno.ENOENT and not os.path.isdir(path.parent)):
            raise StorageError(f"cannot write {path}: {e.strerror}.", "Name another place for it.") from e
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write beside the target, flush, and rename: `path` is the old file or the new one, never half of it."""
    if os.path.isdir(path):
        raise StorageError(f"cannot write {path}: it is a folder.", "Name a file.")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with scratch.open("wb") as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.sshfs", "glusterfs", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs4", "orangefs", "panfs", "smb3", "smbfs", "wekafs",
}  # fmt: skip


def network_file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The kind of network file system that `path` lies on, such as nfs4; '' where it lies on none, or the system does
    not list its mounts."""
    try:
        rows = [line.split() for line in mounts.read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        return ""
    # A space in a name is written as \040; of two mounts at one place the later is seen.
    places = {Path(row[1].replace("\\040", " ")): row[2] for row in rows if len(row) > 2}
    kind = next((places[folder] for folder in (path.resolve(), *path.resolve().parents) if folder in places), "")
    return kind if kind in _NETWORK else ""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically. Raises StorageError where it cannot be written."""
    with atomic_write(path) as f:
        f.write(data)


def write_json(path: Path, value: object) -> None:
    """Write a value as indented JSON, atomically. Raises StorageError where it cannot be written."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path, hint: str = "Delete it and run again.") -> dict[str, Any]:
    """The object in a JSON file. Raises DataError for a file that is absent, damaged or holds another value."""
    try:
        value = parse_json(path.read_bytes())
    except (OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read: {e}.", hint) from e
    if not isinstance(value, dict):
        raise DataError(f"{path} does not hold an object.", hint)
    return value


def write_jsonl(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """One JSON object a line, as they come: never all in memory."""
    with atomic_write(path) as f:
        for row in rows:
            f.write((canonical_json(dict(row)) + "\n").encode())


def iter_jsonl(path: Path, *, lenient: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a file with one JSON object a line; blank lines are passed over.

    `lenient` reads NaN and Infinity, which other programs write into their logs, as null. Raises DataError
    with the line that is not one, or is too long to be held in memory.
    """
    return ((number, row) for number, _, row in iter_jsonl_offsets(path, lenient=lenient))


def iter_jsonl_offsets(path: Path, *, lenient: bool = False) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(line number, bytes from the start of the file to the end of the line, row); as `iter_jsonl` otherwise."""
    end = 0
    try:
        with path.open("rb") as f:
            for number, line in enumerate(iter(lambda: f.readline(LARGEST + 1), b""), 1):
                end += len(line)
                if len(line) > LARGEST:
                    raise DataError(f"{path}:{number} has over {LARGEST >> 20} MB.", "It must be a JSON object a line.")
                if not line.strip(b"\xef\xbb\xbf \t\r\n"):
                    continue
                try:
                    row = parse_json(line, lenient=lenient)
                except Unreadable as e:
                    raise DataError(
                        f"{path}:{number} is not JSON: {e}.",
                        "The file was cut or edited; one of a stage is written again when it is deleted.",
                    ) from e
                if not isinstance(row, dict):
                    raise DataError(f"{path}:{number} is not a JSON object.", "The file was cut or edited.")
                yield number, end, row
    except FileNotFoundError as e:
        raise DataError(f"no file {path}.") from e
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}.") from e


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a file with one JSON object a line. Raises DataError with the line of the first that is not."""
    return [row for _, row in iter_jsonl(path)]
