from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from pathlib import Path

import pytest

from leverplus_core.content import NAME, file_hashes
from leverplus_core.errors import DataError


def settled(path: Path, content: bytes) -> str:
    """A file whose last change is long past, as far as its own stamp says."""
    path.write_bytes(content)
    return str(path)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def kept(cache: Path) -> dict[str, str]:
    if not (cache / NAME).exists():
        return {}
    with sqlite3.connect(cache / NAME) as db:
        return {Path(path).name: found for path, found in db.execute("SELECT path, sha256 FROM hashes")}


def test_hashes_are_of_the_content_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = settled(tmp_path / "a", b"one"), settled(tmp_path / "b", b"two")
    expected = {a: sha256(b"one"), b: sha256(b"two")}
    assert file_hashes([a, b, a], tmp_path) == expected
    assert kept(tmp_path) == {}, "a file that has just changed may change again without a sign"
    later = time.time_ns() + 10**10
    monkeypatch.setattr(time, "time_ns", lambda: later)
    assert file_hashes([a, b], tmp_path) == expected
    assert kept(tmp_path) == {"a": expected[a], "b": expected[b]}
    with sqlite3.connect(tmp_path / NAME) as db:
        db.execute("UPDATE hashes SET sha256 = 'known' WHERE path = ?", (a,))
    assert file_hashes([a, b], tmp_path) == {a: "known", b: expected[b]}, "what is known is not read again"


def test_a_file_that_was_replaced_is_read_though_its_size_and_time_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = settled(tmp_path / "a", b"one")
    later = time.time_ns() + 10**10
    monkeypatch.setattr(time, "time_ns", lambda: later)
    file_hashes([a], tmp_path)
    before = os.stat(a)
    for replace in ("written", "renamed"):
        content = {"written": b"two", "renamed": b"six"}[replace]
        if replace == "written":
            Path(a).write_bytes(content)
        else:
            (tmp_path / "c").write_bytes(content)
            (tmp_path / "c").replace(a)
        os.utime(a, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (os.stat(a).st_size, os.stat(a).st_mtime_ns) == (before.st_size, before.st_mtime_ns)
        assert file_hashes([a], tmp_path) == {a: sha256(content)}


def test_a_cache_that_cannot_be_used_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = settled(tmp_path / "a", b"one")
    later = time.time_ns() + 10**10
    monkeypatch.setattr(time, "time_ns", lambda: later)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / NAME).write_bytes(b"no database" * 100)
    (tmp_path / "file").write_bytes(b"")
    for cache in (tmp_path / "damaged", tmp_path / "file" / "below"):
        assert file_hashes([a], cache) == {a: sha256(b"one")}


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lost.png cannot be read: No such file or directory"):
        file_hashes([str(tmp_path / "lost.png")], tmp_path)
    assert file_hashes([], tmp_path) == {}
