"""The file of the response cache: what is said when it cannot be used."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from leverplus_core.errors import StorageError
from leverplus_core.io import canonical_json, fingerprint
from leverplus_core.plugins.contracts import Model
from leverplus_core.records import AnswerLogprob, Decoding, Image, Prompt, Turn
from leverplus_core.scoring.cache import CachedModel, ResponseCache

HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("BEGIN IMMEDIATE")
print(1, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not list its locks")
def test_a_cache_that_another_process_has_locked_says_by_which_and_can_still_be_read(tmp_path: Path) -> None:
    file = tmp_path / "responses.sqlite"
    cache = ResponseCache(file, patience=0.1)
    cache.put([(b"a", "1")])
    how = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(how, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdin is not None
        other.stdout.readline()
        with pytest.raises(StorageError) as told:
            cache.put([(b"b", "2")])
        assert str(told.value).startswith(f"the response cache {file} is locked by process {other.pid} (")
        assert told.value.hint == "Wait for it to finish, or end it, and run the same command."
        assert cache.get([b"a", b"b"]) == {b"a": "1"}
        other.stdin.close()
    cache.put([(b"b", "2")])
    assert cache.get([b"a", b"b"]) == {b"a": "1", b"b": "2"}
    cache.close()


def test_a_cache_that_is_damaged_or_full_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match=r"damaged cannot be opened: .* Move the file away and run again"):
        ResponseCache(tmp_path / "damaged")
    full = ResponseCache(tmp_path / "full")
    with sqlite3.connect(tmp_path / "full") as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.close()
    full._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own limit fails as a disk without room does
    with pytest.raises(StorageError, match=r"full cannot be written: .* Free some space"):
        full.put([(bytes([i]), "x" * 4000) for i in range(200)])
    full.close()


def test_one_process_at_a_time_has_a_cache_on_a_network_file_system(tmp_path: Path) -> None:
    file = tmp_path / "responses.sqlite"
    first = ResponseCache(file, alone=True)
    first.put([(b"a", "1")])
    assert not file.with_name("responses.sqlite-shm").exists()  # the memory that machines do not share
    with pytest.raises(StorageError, match=r"responses.sqlite is locked by "):
        ResponseCache(file, patience=0.1, alone=True)
    first.close()
    second = ResponseCache(file, alone=True)
    assert second.get([b"a"]) == {b"a": "1"}
    second.close()


class Sure(Model):
    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> list[AnswerLogprob]:
        return [AnswerLogprob(-0.5, 1) for _ in prompts]

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        raise AssertionError


def test_a_key_is_six_bytes_of_the_first_image_and_a_hash_of_all_that_decides_the_response(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(b"pixels")
    photo, text = Image("1", str(tmp_path / "photo"), "a caption"), 'Quoted "words"\n\u4e3a\x7f \\ and \x01'
    cache, model = ResponseCache(tmp_path / "r.sqlite"), Sure()
    asked = CachedModel(lambda: model, lambda: ["model", 1], cache)
    shown = Prompt((Turn("system", ("Be brief.",)), Turn("user", (text, photo, text))))
    bare = Prompt((Turn("user", (text,)),))
    asked.logprob([shown, bare], ["red", 'r"d'])
    image = hashlib.sha256(b"pixels\0a caption").hexdigest()
    of_shown, of_bare = (
        hashlib.sha256(canonical_json(["logprob", fingerprint(["model", 1]), *rest]).encode()).digest()
        for rest in (
            ([["system", ["Be brief."]], ["user", [text, [image], text]]], "red"),
            ([["user", [text]]], 'r"d'),
        )
    )
    keys = [bytes.fromhex(image[:12]) + of_shown[6:], of_bare]
    assert cache.get(keys) == dict.fromkeys(keys, "[-0.5, 1]")
    asked.close()


@pytest.mark.parametrize("value", ["[1, 2, 3]", "nonsense", "7"])
def test_a_value_that_is_no_response_is_told(tmp_path: Path, value: str) -> None:
    asked = CachedModel(Sure, lambda: ["model", 1], ResponseCache(tmp_path / "r.sqlite"))
    asked.logprob([Prompt((Turn("user", ("a",)),))], ["red"])
    with sqlite3.connect(tmp_path / "r.sqlite") as db:
        db.execute("UPDATE responses SET value = ?", (value,))
    db.close()
    with pytest.raises(StorageError, match=r"holds a value that is no response of a model. Move responses.sqlite"):
        asked.logprob([Prompt((Turn("user", ("a",)),))], ["red"])
    asked.close()


def test_a_file_with_another_table_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    """No chunk of a model's work is lost to a file that cannot take it."""
    file = tmp_path / "responses.sqlite"
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("CREATE TABLE responses (key BLOB PRIMARY KEY, value TEXT) WITHOUT ROWID")
    with pytest.raises(StorageError, match=r"cannot be opened: no such column: day. Move the file away and run again"):
        ResponseCache(file)
