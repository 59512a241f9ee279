from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from leverplus_core import processes
from leverplus_core.processes import has_ended, lock_holder, named, this_host


def test_a_process_has_ended_when_it_was_killed_even_while_its_parent_has_not_asked_for_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"], stdout=-1)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert not has_ended(this_host(), child.pid) and not has_ended(this_host(), os.getpid())
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # killed, and still in the list of processes
        assert has_ended(this_host(), child.pid)
    assert has_ended(this_host(), child.pid)


def test_nothing_is_known_of_a_process_of_another_host_or_container() -> None:
    assert not has_ended("elsewhere", 2**22 + 1) and has_ended(this_host(), 2**22 + 1)
    assert not has_ended(f"{this_host().partition(':')[0]}:1", 2**22 + 1)


def test_a_process_is_named_where_the_system_tells_its_name() -> None:
    assert named(os.getpid()).startswith(f"process {os.getpid()}") and named(2**22 + 1) == f"process {2**22 + 1}"


HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute(sys.argv[2])
print(1, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="this system does not list its locks")
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_who_holds_a_lock_on_a_database_is_told(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "a.db"
    with sqlite3.connect(file) as db:
        db.execute(f"PRAGMA journal_mode={mode}")
        db.execute("CREATE TABLE t (x)")
    assert lock_holder(file) == "another program"
    how = [sys.executable, "-c", HOLD, str(file), "BEGIN IMMEDIATE"]
    with subprocess.Popen(how, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdin is not None
        other.stdout.readline()
        assert lock_holder(file).startswith(f"process {other.pid}")
        other.stdin.close()
    assert lock_holder(file) == lock_holder(tmp_path / "absent") == "another program"
    db.close()


@pytest.mark.parametrize(("quota", "most"), [("150000 100000", 2), ("max 100000", 64), ("1000 100000", 1), ("", 64)])
def test_a_container_has_no_more_cpus_than_it_has_time_of(
    quota: str, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(processes, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert processes.usable_cpus() == most


CHILD = """
import os, sys
from leverplus_core.processes import let_threads_sleep, set_threads
os.sched_getaffinity = lambda pid: {0}
let_threads_sleep()
set_threads(None)
threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else "not set"
print(os.environ.get("GOMP_SPINCOUNT"), threads)
"""


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        ({}, "10000 1"),
        ({"OMP_NUM_THREADS": "20"}, "10000 not set"),
        ({"OMP_NUM_THREADS": "20", "GOMP_SPINCOUNT": "7"}, "7 not set"),
        ({"OMP_NUM_THREADS": "20", "OMP_WAIT_POLICY": "active"}, "None not set"),
    ],
)
def test_threads_sleep_soon_and_are_no_more_than_cpus_unless_the_user_says_otherwise(
    given: dict[str, str], printed: str
) -> None:
    kept = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", CHILD]
    done = subprocess.run(command, env=kept | given, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed
