"""Files over HTTP that are complete or absent: a partial one is kept as FILE.part, and the next call resumes it."""

from __future__ import annotations

import http.client
import shutil
import ssl
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

from leverplus_core import DataError, Progress, Silent, StorageError, atomic_write, storage_errors

BLOCK = 1 << 18
TIMEOUT_S = 30.0


def part_of(target: Path) -> Path:
    """Where the partial content of `target` is kept."""
    return target.with_name(f"{target.name}.part")


def download(url: str, target: Path, progress: Progress | None = None) -> None:
    """Download `url` to `target` unless it exists, resuming from `target`.part where an earlier call stopped.

    Raises DataError when the server cannot be reached, refuses, or stops in the middle (the partial file is kept),
    StorageError when the disk has no room.
    """
    if target.is_file():
        return
    part = part_of(target)
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    total = None
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            # A server that ignores the range answers 200 with the whole file.
            start = have if response.headers.get("Content-Range", "").startswith(f"bytes {have}-") else 0
            length = response.headers.get("Content-Length")
            total = start + int(length) if length else None
            _write(response, part, start, total, progress or Silent())
        complete = total in (None, part.stat().st_size)
    except urllib.error.HTTPError as e:
        e.close()
        if e.code == 416 and have:  # the partial file is longer than the file, or as long
            part.unlink()
            return download(url, target, progress)
        raise DataError(f"{url}: the server says {e.code} {e.reason}.", "Download it by hand.") from e
    except urllib.error.URLError as e:
        raise DataError(f"{url} cannot be reached: {e.reason}.", "Go online, or download it by hand.") from e
    except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError):
        complete = False
    if not complete:
        size = part.stat().st_size if part.is_file() else 0
        of = f" of {total:,}" if total else ""
        raise DataError(f"{url}: the transfer stopped at {size:,}{of} bytes.", "The same command resumes it.")
    with storage_errors(target):
        part.replace(target)


def _write(response: http.client.HTTPResponse, part: Path, start: int, total: int | None, progress: Progress) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise StorageError(
            f"{part.stem} needs {total - start:,} more bytes, {free:,} are free in {part.parent}.",
            "Free some space or name another folder.",
        )
    # In MB: a bar that counts bytes has too many digits.
    with (
        progress.task(f"{part.stem} (MB)", (total or 0) // 1_000_000) as task,
        storage_errors(part),
        part.open("r+b" if start else "wb") as out,
    ):
        out.truncate(start)
        out.seek(start)
        task.advance(start // 1_000_000)
        while block := response.read(BLOCK):
            before = out.tell() // 1_000_000
            out.write(block)
            task.advance(out.tell() // 1_000_000 - before)


def unpack(archive: Path, suffix: str, folder: Path, progress: Progress | None = None) -> None:
    """Write the members of a zip archive whose names end in `suffix` to `folder`, each complete or not at all.

    Members that `folder` has with the same size are skipped. Raises DataError when the archive has no such member or
    is damaged; a damaged one becomes a partial download, so that the same command completes or replaces it.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            members = {m: folder / Path(m.filename).name for m in packed.infolist() if m.filename.endswith(suffix)}
            if not members:
                raise DataError(f"{archive} holds no {suffix}.", "Is it the right archive?")
            absent = {m: f for m, f in members.items() if not f.is_file() or f.stat().st_size != m.file_size}
            with (progress or Silent()).task(f"unpack {archive.name}", len(absent)) as task:
                for member, file in absent.items():
                    with packed.open(member) as source, atomic_write(file) as out:
                        shutil.copyfileobj(source, out, BLOCK)
                    task.advance()
    except (zipfile.BadZipFile, EOFError, zlib.error) as e:
        archive.replace(part_of(archive))
        raise DataError(f"{archive} is damaged: {e}.", "Run the same command to download it again.") from e
