"""An imported folder on disk: whole or absent, and unchanged since.

`imported.json` is written last and holds the sha256 of every other file. A folder is built beside its place and
renamed into it; one that is added to is rebuilt from links and swapped, so that a kill at any moment leaves the old
folder or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leverplus_core.errors import DataError
from leverplus_core.io import read_json, storage_errors, write_json

FORMAT = 2
MANIFEST = "imported.json"
POOLS, SEQUENCES = "pools.json", "beams.jsonl"
"""What training reads, beside `CANDIDATES` and `FEATURES`, in the formats that stages write."""
SUMMARY = "summary.json"
"""What the import printed."""
EMBEDDINGS = "embeddings.npz"
"""The embeddings that were imported, as they were: `ids` (N,) and `rows` (N, D)."""


def given_path(folder: Path, kind: str) -> Path:
    """Texts, pools and sequences as the file of one importer gave them, a question per line."""
    return folder / f"from-{kind}.jsonl"


@dataclass(frozen=True)
class Manifest:
    """`imports`: importer -> {file, sha256, settings, dataset}; `files`: name -> sha256 of each file in the folder."""

    imports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Manifest:
        """Raises DataError when `root` is not an imported folder, or a file of it is cut, edited or missing."""
        recover(root)
        if not os.path.isfile(root / MANIFEST):
            what = "has no imported.json" if os.path.isdir(root) else "is not a folder"
            raise DataError(f"{root} {what}.", "Make it with `leverplus import rl-data FILE.json -o FOLDER`.")
        again = f"Delete {root} and import again."
        value = read_json(root / MANIFEST)
        if value.get("format") != FORMAT or not all(isinstance(value.get(part), dict) for part in ("imports", "files")):
            raise DataError(f"{root / MANIFEST} is not of format {FORMAT}.", again)
        for name, sha256 in value["files"].items():
            if not os.path.isfile(root / name):
                raise DataError(f"{root / name} is missing.", again)
            if hash_of(root / name) != sha256:
                raise DataError(f"{root / name} is cut or was edited since it was imported.", again)
        return cls(value["imports"], value["files"])


@contextmanager
def building(root: Path) -> Iterator[Path]:
    """A folder to fill, with what `root` holds already; on success it takes the place of `root`, else nothing changes.

    Its files are links: replace them, never write into them. Call `seal` last. Raises DataError when `root` is
    something else or was changed meanwhile.
    """
    recover(root)
    if os.path.exists(root) and not (
        os.path.isdir(root) and (os.path.isfile(root / MANIFEST) or not any(root.iterdir()))
    ):
        raise DataError(f"{root} exists and is not an imported folder.", "Name another with -o FOLDER.")
    began = _manifest_bytes(root)
    with storage_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        scratch = root.with_name(f".{root.name}.importing-{os.getpid()}")
        scratch.mkdir()
        try:
            for path in root.iterdir() if began else ():
                if path.name != MANIFEST:
                    _link(path, scratch / path.name)
            yield scratch
            if _manifest_bytes(root) != began:
                raise _meanwhile(root)
            if began:
                root.rename(_previous(root))
            try:
                scratch.rename(root)
            except OSError as e:
                raise _meanwhile(root) if e.errno in (errno.ENOTEMPTY, errno.EEXIST) else e from e
            recover(root)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            recover(root)


def seal(scratch: Path, imports: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `imported.json` with the hashes of all files in the folder."""
    files = {path.name: hash_of(path) for path in sorted(scratch.iterdir())}
    write_json(scratch / MANIFEST, {"format": FORMAT, "imports": dict(imports), "files": files})


def recover(root: Path) -> None:
    """Finish a swap of folders that was killed: the old one is restored unless the new one is in place."""
    if not os.path.isdir(_previous(root)):
        return
    if os.path.exists(root):
        shutil.rmtree(_previous(root), ignore_errors=True)
    else:
        _previous(root).rename(root)


def hash_of(path: Path) -> str:
    """sha256 of a file."""
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror or e}.", "Check the path.") from e


def _meanwhile(root: Path) -> DataError:
    return DataError(f"{root} was changed by another import meanwhile.", "Run the same command again.")


def _previous(root: Path) -> Path:
    return root.with_name(f".{root.name}.previous")


def _manifest_bytes(root: Path) -> bytes:
    return (root / MANIFEST).read_bytes() if os.path.isfile(root / MANIFEST) else b""


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


def _sweep(root: Path) -> None:
    """Delete what killed imports left beside `root`."""
    for path in root.parent.glob(f".{root.name}.importing-*"):
        try:
            os.kill(int(path.name.rpartition("-")[2]), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
        except PermissionError:
            pass  # another user's process, still running
