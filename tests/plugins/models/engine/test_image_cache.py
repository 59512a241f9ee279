"""Encoded images in memory and on disk: bounds, damage, a full disk, and two processes."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from leverplus_core import LeverplusWarning
from leverplus_models.engine import image_cache as module
from leverplus_models.engine.image_cache import MOST_WAITING, ImageCache

CPU = torch.device("cpu")


def _tokens(n: int, rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(n))


def _key(n: int) -> str:
    return f"{n % 7}f{n:08d}"


def test_memory_is_bounded_and_disk_has_the_rest(tmp_path: Path) -> None:
    each = _tokens(0).nbytes
    known = ImageCache(3 * each, tmp_path)
    for n in range(10):
        known.put(_key(n), _tokens(n))
        assert known.bytes <= 3 * each
    for n in range(10):
        found = known.get([_key(n)], CPU)
        assert torch.equal(found[_key(n)], _tokens(n)) and known.bytes <= 3 * each
    assert known.get([_key(11)], CPU) == {}


def test_without_a_folder_what_does_not_fit_is_forgotten() -> None:
    known = ImageCache(2 * _tokens(0).nbytes)
    for n in range(3):
        known.put(_key(n), _tokens(n))
        known.get([_key(0)], CPU)  # used again and again
    assert set(known.get([_key(n) for n in range(3)], CPU)) == {_key(0), _key(2)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_later_run_reads_them(tmp_path: Path, dtype: torch.dtype) -> None:
    ImageCache(1 << 20, tmp_path).put(_key(1), _tokens(1).to(dtype))
    found = ImageCache(1 << 20, tmp_path).get([_key(1)], CPU)[_key(1)]
    assert found.dtype == dtype and torch.equal(found, _tokens(1).to(dtype))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another's"])
def test_a_damaged_file_is_noticed_and_dropped(tmp_path: Path, damage: str) -> None:
    known = ImageCache(1 << 20, tmp_path)
    for n in range(2):
        known.put(_key(n), _tokens(n))
    files = [next(tmp_path.rglob(f"{_key(n)}.safetensors")) for n in range(2)]
    for file in files:
        data = file.read_bytes()
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        other = (files[1] if file == files[0] else files[0]).read_bytes()
        file.write_bytes({"cut": data[:-5], "flipped": flipped, "empty": b"", "another's": other}[damage])
    fresh = ImageCache(1 << 20, tmp_path)
    with pytest.warns(LeverplusWarning, match="is damaged") as said:
        assert fresh.get([_key(0)], CPU) == {}
        fresh.get([_key(1)], CPU)
    assert len(said) == 1  # once a run
    assert not files[0].exists()
    fresh.put(_key(0), _tokens(0))
    assert torch.equal(ImageCache(1 << 20, tmp_path).get([_key(0)], CPU)[_key(0)], _tokens(0))


def test_a_folder_that_cannot_be_written_leaves_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    known = ImageCache(1 << 20, tmp_path)
    with pytest.warns(LeverplusWarning, match="No space left on device.; this run continues") as said:
        known.put(_key(0), _tokens(0))
        known.put(_key(1), _tokens(1))
    assert len(said) == 1
    assert len(known.get([_key(0), _key(1)], CPU)) == 2
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_thread_writes_what_is_read_again(tmp_path: Path) -> None:
    """More than may wait, and no memory: each is on disk when it is asked for, and all are in the end."""
    known = ImageCache(1, tmp_path, later=True)
    for n in range(2 * MOST_WAITING):
        with torch.inference_mode():  # as an encoder calls it
            known.put(_key(n), _tokens(n))
        assert len(known._waiting) <= MOST_WAITING and known.has(_key(n))
        assert torch.equal(known.get([_key(n // 2)], CPU)[_key(n // 2)], _tokens(n // 2))
    known.settle()
    later = ImageCache(1 << 20, tmp_path).get([_key(n) for n in range(2 * MOST_WAITING)], CPU)
    assert all(torch.equal(later[_key(n)], _tokens(n)) for n in range(2 * MOST_WAITING))
    assert not [file for file in tmp_path.rglob(".*") if file.is_file()]


def test_a_thread_that_cannot_write_is_one_warning_of_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    known = ImageCache(1 << 20, tmp_path, later=True)
    for n in range(3):
        known.put(_key(n), _tokens(n))
    with pytest.warns(LeverplusWarning, match="No space left on device.; this run continues") as said:
        known.settle()
    assert len(said) == 1 and known.folder is None
    known.put(_key(3), _tokens(3))  # and goes on in memory
    known.settle()
    assert len(known.get([_key(n) for n in range(4)], CPU)) == 4


def test_a_file_larger_than_a_process_may_write_leaves_memory(tmp_path: Path) -> None:
    """A real limit of the system, in a process of its own."""
    code = f"""
import resource, signal, warnings, torch
from pathlib import Path
from leverplus_models.engine import image_cache as module
from leverplus_models.engine.image_cache import MOST_WAITING, ImageCache
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for later in (False, True):
    known = ImageCache(1 << 20, Path({str(tmp_path)!r}), later=later)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for n in range(3):
            known.put(f"{{later}}{{n}}", torch.ones(100, 100))
        known.settle()
    assert len(said) == 1 and "File too large" in str(said[0].message), said
    assert len(known.get([f"{{later}}{{n}}" for n in range(3)], torch.device("cpu"))) == 3
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_files_are_read_by_threads_before_they_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = ImageCache(1 << 20, tmp_path)
    for n in range(4):
        written.put(_key(n), _tokens(n))
    next(tmp_path.rglob(f"{_key(2)}.safetensors")).write_bytes(b"damaged")
    known, load, by = ImageCache(1 << 20, tmp_path), module._load, []

    def noted(path: Path, key: str) -> torch.Tensor | str | None:
        by.append(threading.current_thread() is threading.main_thread())
        return load(path, key)

    monkeypatch.setattr(module, "_load", noted)
    with ThreadPoolExecutor(4) as readers:
        known.read_ahead([_key(n) for n in range(3)], readers)
        known.read_ahead([_key(n) for n in range(1, 6)], readers)  # some again, two without a file
        with pytest.warns(LeverplusWarning, match="is damaged"):  # said where it is asked for
            found = known.get([_key(n) for n in range(4)], CPU)
    assert by == [False] * 4
    assert sorted(found) == sorted(_key(n) for n in (0, 1, 3))
    assert all(torch.equal(found[_key(n)], _tokens(n)) for n in (0, 1, 3))
    assert not known.has(_key(2))


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    known = ImageCache(1 << 20, tmp_path / "taken")
    with pytest.warns(LeverplusWarning, match="cannot be written"):
        known.put(_key(0), _tokens(0))
    assert _key(0) in known.get([_key(0)], CPU)


def _write_and_read(folder: Path) -> None:
    warnings.simplefilter("error")
    known = ImageCache(1, folder)  # nothing stays in memory
    for _ in range(5):
        for n in range(20):
            known.put(_key(n), _tokens(n, 64))
            found = known.get([_key(n)], CPU)
            assert torch.equal(found[_key(n)], _tokens(n, 64))


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_and_read, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == 20
