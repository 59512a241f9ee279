"""A file over HTTP that is whole or not there: what came is kept in FILE.part, and the next call goes on from it."""

from __future__ import annotations

import http.client
import re
import shutil
import ssl
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from leverplus_core.errors import DataError, StorageError
from leverplus_core.io import atomic_write, storage_errors
from leverplus_core.progress import Progress, Silent

BLOCK = 1 << 18
TIMEOUT_S = 30.0


def download(url: str, target: Path, progress: Progress | None = None, timeout_s: float = TIMEOUT_S) -> Path:
    """Bring `url` to `target`, going on from `target`.part where an earlier call was cut off.

    Raises DataError when the server cannot be reached, refuses, or stops in the middle (what came is kept),
    StorageError when it does not fit the disk.
    """
    if target.is_file():
        return target
    part = target.with_name(f"{target.name}.part")
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            start, total = _span(answer, have)
            free = shutil.disk_usage(target.parent).free
            if total is not None and total - start > free:
                raise StorageError(
                    f"{target.name} needs {total - start:,} bytes more, {free:,} are free in {target.parent}.",
                    "Free some space or name another folder.",
                )
            # Steps of a million bytes: a bar that counts bytes has too many digits.
            with storage_errors(target), part.open("r+b" if start else "wb") as out:
                out.seek(start)
                out.truncate()
                _copy(answer, out, start, total, f"{target.name} (MB)", progress or Silent())
    except urllib.error.HTTPError as e:
        e.close()
        if e.code == 416 and have:  # all of it was there, or what was there is of another file
            part.unlink()
            return download(url, target, progress, timeout_s)
        raise DataError(f"{url}: the server says {e.code} {e.reason}.", "Fetch it by hand.") from e
    except urllib.error.URLError as e:
        raise DataError(f"{url} cannot be reached: {e.reason}.", "Go online, or fetch it by hand.") from e
    except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as e:
        raise _cut_off(url, part, None) from e
    came = part.stat().st_size
    if total is not None and came != total:
        raise _cut_off(url, part, total)
    with storage_errors(target):
        part.replace(target)
    return target


def _span(answer: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Where the body starts in the file, and the size of the whole; a server that knows no ranges starts at 0."""
    if answer.status == 206 and (found := re.match(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))):
        start, total = int(found[1]), int(found[2])
        if start == have:
            return start, total
        raise DataError(f"{answer.url}: asked for byte {have:,}, the server sent byte {start:,}.", "Fetch it by hand.")
    length = answer.headers.get("Content-Length")
    return 0, int(length) if length else None


def _copy(
    answer: http.client.HTTPResponse, out: BinaryIO, start: int, total: int | None, label: str, progress: Progress
) -> None:
    at, shown = start, start // 1_000_000
    with progress.task(label, (total or 0) // 1_000_000) as task:
        task.advance(shown)
        while block := answer.read(BLOCK):
            out.write(block)
            at += len(block)
            task.advance(at // 1_000_000 - shown)
            shown = at // 1_000_000


def _cut_off(url: str, part: Path, total: int | None) -> DataError:
    came = part.stat().st_size if part.is_file() else 0
    of = f" of {total:,}" if total else ""
    return DataError(f"{url}: the transfer stopped at {came:,}{of} bytes.", "The same command goes on from there.")


def unpack(archive: Path, names: Sequence[str], folder: Path) -> None:
    """Write the members `names` of a zip archive to `folder`, whole or not at all.

    Raises DataError for an archive that is damaged or lacks one; a damaged one is deleted, since it would not mend.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            members = {Path(member).name: member for member in packed.namelist()}
            for name in names:
                if name not in members:
                    raise DataError(f"{archive.name} holds no {name}.", "Is it the right archive?")
                with packed.open(members[name]) as member, atomic_write(folder / name) as out:
                    shutil.copyfileobj(member, out, BLOCK)
    except (zipfile.BadZipFile, EOFError, zlib.error) as e:
        archive.unlink()
        raise DataError(
            f"{archive} was damaged ({e}) and is deleted.", "Run the same command to fetch it again."
        ) from e


def unpack_photos(archive: Path, subtype: str, folder: Path, progress: Progress | None = None) -> int:
    """Write the photos of a zip archive that are not there yet to `folder`/`subtype`; how many there were to write.

    Raises DataError for a damaged archive.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            wanted = [m for m in packed.infolist() if m.filename.endswith(".jpg")]
            places = {m.filename: folder / subtype / Path(m.filename).name for m in wanted}
            absent = [m for m in wanted if not _has(places[m.filename], m.file_size)]
            with (progress or Silent()).task(f"unpack {archive.name}", len(absent)) as task:
                for member in absent:
                    with packed.open(member) as source, atomic_write(places[member.filename]) as out:
                        shutil.copyfileobj(source, out, BLOCK)
                    task.advance()
    except (zipfile.BadZipFile, EOFError, zlib.error) as e:
        raise DataError(f"{archive} is damaged: {e}.", "Delete it and run the same command.") from e
    return len(absent)


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
