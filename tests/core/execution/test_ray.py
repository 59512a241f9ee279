"""Workers on Ray: a real cluster on loopback, and what is said where there is none."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from leverplus_core import DataError
from leverplus_core.errors import ExecutionError
from leverplus_core.execution.choose import check_execution
from leverplus_core.execution.ray_cluster import RayPool
from leverplus_core.recipes.settings import ExecutionSettings
from tests.core.execution.asking import ask, telling, tiny_spec

HEAD = "127.0.0.2"


def _pool(folder: Path, address: str | None, said: list[str]) -> RayPool:
    settings = ExecutionSettings(executor="ray", workers=2, address=address)
    return RayPool(settings, tiny_spec(folder, {"nap": 0.1}), said.append)


def test_without_ray_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExecutionError, match=r"^execution is 'ray', and Ray is not installed. Run: pip install 'lever"):
        check_execution(ExecutionSettings(executor="ray"))
    check_execution(ExecutionSettings(workers=2))


def _free_port() -> int:
    with socket.socket() as s:
        s.bind((HEAD, 0))
        return int(s.getsockname()[1])


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    address = f"{HEAD}:{_free_port()}"
    with pytest.raises(ExecutionError, match=f"^the Ray cluster {address} cannot be reached: .* refused") as gone:
        ask(_pool(tmp_path, address, []), [telling("a")])
    assert "\n" not in str(gone.value)


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A cluster of this test's own: its address, and the process whose group it is."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # else a token is written into the user's home
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    port = _free_port()
    words = f"start --head --block --node-ip-address={HEAD} --port={port} --num-cpus=2 --include-dashboard=false"
    command = [sys.executable, "-m", "ray.scripts.scripts", *words.split(), "--object-store-memory=100000000"]
    # A new session: whatever it starts is ended with it, and nothing else of Ray's on this machine.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < until, "Ray does not start"
            try:
                socket.create_connection((HEAD, port), 1).close()
                break
            except OSError:
                time.sleep(0.2)
        yield f"{HEAD}:{port}", process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_actors_compute_every_chunk_and_one_that_is_killed_loses_none(
    tmp_path: Path, head: tuple[str, subprocess.Popen[bytes]]
) -> None:
    said: list[str] = []
    pool = _pool(tmp_path, head[0], said)
    try:
        assert ask(pool, [telling("a", f"{n}") for n in range(6)]) == [["a", f"{n}"] for n in range(6)]
        with pytest.raises(DataError, match=r"the data are bad\.$"):
            ask(pool, [telling("data")])
        killed = 0
        found: dict[int, str] = {}
        for done in pool.map([telling(f"{n}", "process") for n in range(40)]):
            found[done.index] = str(done.results[0])
            if not killed:
                killed = int(str(done.results[1]))
                os.kill(killed, signal.SIGKILL)
        assert found == {n: f"{n}" for n in range(40)}
        assert any(f"process {killed}" in line and "was lost" in line for line in said)
    finally:
        pool.close()


DRIVER = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from leverplus_core.errors import ExecutionError
from tests.core.execution.asking import telling
from tests.core.execution.test_ray import _pool
pool = _pool(Path({folder!r}), {address!r}, [])
try:
    for done in pool.map([telling("a")] * 2000):
        print(done.index, flush=True)
except ExecutionError as error:
    print(error, flush=True)
finally:
    pool.close()
"""


@pytest.mark.slow
def test_a_cluster_that_goes_away_is_one_line(tmp_path: Path, head: tuple[str, subprocess.Popen[bytes]]) -> None:
    """In a process of its own: a minute after its cluster is gone, Ray ends the process that had joined it."""
    code = DRIVER.format(root=str(Path(__file__).parents[3]), folder=str(tmp_path), address=head[0])
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None and driver.stdout.readline().strip().isdigit()
    _end(head[1])
    said = [line for line in driver.communicate()[0].splitlines() if not line.isdigit()]
    assert len(said) == 1 and said[0].startswith(f"the Ray cluster at {head[0]} is gone: ")
