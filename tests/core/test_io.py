"""Files are whole or absent; damage and a full disk are one line."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from leverplus_core.errors import DataError, StorageError
from leverplus_core.io import fingerprint, network_file_system, read_jsonl, write_bytes, write_json, write_jsonl
from leverplus_core.pipeline.workspace import Workspace
from leverplus_core.scoring.cache import ResponseCache


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [1.5]}) == fingerprint({"b": [1.5], "a": 1}) != fingerprint({"a": 1, "b": [1.25]})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_json(path, [1])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="no room left"):
        write_json(path, [2])
    assert path.read_text() == "[\n 1\n]\n" and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_cut_file_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    write_jsonl(path, [{"a": "é中"}, {"b": 2}])
    assert read_jsonl(path) == [{"a": "é中"}, {"b": 2}]
    write_bytes(path, path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"c.jsonl:2"):
        read_jsonl(path)


def test_a_stage_is_done_when_its_provenance_is_there(tmp_path: Path) -> None:
    folder = Workspace(tmp_path).stage("pool", "abc")
    assert not folder.done
    folder.finish({"stage": "pool"})
    assert Workspace(tmp_path).stage("pool", "abc").done


@pytest.mark.parametrize("text", ['"a stage"', "[1]", "5", "null"])
def test_a_provenance_that_is_no_object_is_one_line(tmp_path: Path, text: str) -> None:
    folder = Workspace(tmp_path).stage("pool", "0123")
    folder.make()
    (folder.path / "provenance.json").write_text(text)
    with pytest.raises(DataError, match=r"provenance\.json does not hold an object\. Delete it and run again"):
        folder.provenance()


def test_a_damaged_measurement_store_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at" * 40)
    with pytest.raises(StorageError, match=r"m.sqlite"):
        ResponseCache(path)


def test_two_stores_share_one_file(tmp_path: Path) -> None:
    one, two = ResponseCache(tmp_path / "m.sqlite"), ResponseCache(tmp_path / "m.sqlite")
    one.put([(b"k", "1")])
    two.put([(b"k", "2"), (b"j", "3")])
    assert one.get([b"k", b"j", b"absent"]) == {b"k": "1", b"j": "3"}


def test_the_kind_of_a_network_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    home, scratch = tmp_path / "our home", tmp_path / "our home" / "scratch"
    scratch.mkdir(parents=True)
    mounts = tmp_path / "mounts"
    shown = str(home.resolve()).replace(" ", "\\040")
    rows = ("overlay / overlay", f"server:/home {shown} nfs4", f"/dev/sda {shown}/scratch ext4")
    mounts.write_text("".join(f"{row} rw 0 0\n" for row in rows))
    assert network_file_system(home / "work" / "responses.sqlite", mounts) == "nfs4"
    assert network_file_system(scratch / "responses.sqlite", mounts) == ""
    assert network_file_system(tmp_path, mounts) == network_file_system(home, tmp_path / "absent") == ""
