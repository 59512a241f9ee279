"""Runs commands of leverplus in forked processes, so that each costs its work and not its imports, and kills some.

`python -m tools.soak.launcher` reads a JSON object a line and answers each with one: see `Launcher.run`. A process may
be killed after some seconds, or just before its n-th operation: a file opened for writing, renamed, linked, cut or
removed, a folder made or removed, an fsync, and each statement by which SQLite changes something.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300
"""A command that takes longer hangs."""
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "shutil.rmtree"}
SHARED = (
    "leverplus_core.cli", "leverplus_core.pipeline.run", "leverplus_core.report.headline", "matplotlib.figure",
    "scipy.stats", "sqlalchemy.dialects.sqlite", "torch._dynamo", "transformers",
)  # fmt: skip
"""Imported once, so that the commands need not."""
STATEMENTS = ("BEGIN", "COMMIT", "ROLLBACK", "INSERT", "UPDATE", "DELETE", "CREATE", "PRAGMA", "VACUUM")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, negative for a signal; its seconds; what it printed; and, where it was not
    killed, how many operations of each kind it made."""

    code: int
    seconds: float
    stdout: str
    stderr: str
    operations: dict[str, int]


class Launcher:
    """The process that starts the commands. Use `launcher()`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.soak.launcher"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONHASHSEED": "0"},
        )  # fmt: skip

    def run(
        self, arguments: Sequence[str], folder: Path, *, seconds: float | None = None, operation: int | None = None
    ) -> Ended:
        """`leverplus ARGUMENTS` in `folder`, killed after so many seconds or before its n-th operation, from 1."""
        return self.wait(self.start(arguments, folder, seconds=seconds, operation=operation))

    def start(
        self, arguments: Sequence[str], folder: Path, *, seconds: float | None = None, operation: int | None = None
    ) -> int:
        """As `run`, and without waiting; returns a number for `wait`."""
        return int(self._ask({"start": list(arguments), "folder": str(folder), "seconds": seconds, "at": operation}))

    def wait(self, number: int) -> Ended:
        """How the command ended that `start` gave this number."""
        return Ended(**self._ask({"wait": number}))

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _ask(self, question: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@cache
def launcher() -> Launcher:
    """The one of this process, started when it is first used."""
    started = Launcher()
    atexit.register(started.close)
    return started


# --- in the process that starts the commands ---


@dataclass(frozen=True)
class _Child:
    pid: int
    began: float
    folder: Path
    files: tuple[Path, Path, Path]
    seconds: float | None


def _serve() -> None:
    for module in SHARED:
        importlib.import_module(module)
    children: dict[int, _Child] = {}
    answer = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        question = json.loads(line)
        if "start" in question:
            number = len(children)
            children[number] = _fork(number, question)
            told: object = number
        else:
            told = _wait(children[question["wait"]])
        answer.write(json.dumps(told) + "\n")
        answer.flush()


def _fork(number: int, question: dict[str, Any]) -> _Child:
    folder = Path(question["folder"])
    files = tuple(folder.with_name(f"{folder.name}.{number}.{what}") for what in ("out", "err", "operations"))
    began, pid = time.monotonic(), os.fork()
    if pid == 0:
        _command(question["start"], folder, files, question["at"])
    return _Child(pid, began, folder, (files[0], files[1], files[2]), question["seconds"])


def _wait(child: _Child) -> dict[str, Any]:
    end = child.began + (PATIENCE_S if child.seconds is None else child.seconds)
    while (ended := os.waitpid(child.pid, os.WNOHANG))[0] == 0:
        if time.monotonic() >= end:
            os.kill(child.pid, signal.SIGKILL)
            ended = os.waitpid(child.pid, 0)
            break
        time.sleep(0.001)
    out, err, operations = child.files
    counted = json.loads(operations.read_text()) if operations.exists() else {}
    return {
        "code": os.waitstatus_to_exitcode(ended[1]), "seconds": time.monotonic() - child.began,
        "stdout": out.read_text(), "stderr": err.read_text(), "operations": counted,
    }  # fmt: skip


def _command(arguments: Sequence[str], folder: Path, files: Sequence[Path], at: int | None) -> None:
    """The child: never returns."""
    code = 70
    try:
        os.chdir(folder)
        for number, file in enumerate(files[:2], 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), number)
        sys.argv = ["leverplus", *arguments]
        counts = _count_operations(folder, at)
        from leverplus_core.cli import main

        try:
            main()
        except SystemExit as e:
            code = int(e.code or 0)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        counted = json.dumps(counts)
        files[2].write_text(counted)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _count_operations(folder: Path, at: int | None) -> Counter[str]:
    counts, last = Counter[str](), [""]
    inside = f"{folder}{os.sep}"

    def happens(what: str) -> None:
        counts[what] += 1
        if at is not None and counts.total() == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def statement(text: str) -> None:
        verb = text.split(maxsplit=1)[0].upper()
        if verb in STATEMENTS and not verb == last[0] == "INSERT":  # one for all rows of a table
            happens(f"sql {verb.lower()}")
        last[0] = verb

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if writes and isinstance(path, str | bytes) and _is_below(os.fsdecode(path), inside):
                happens("open")
        elif event in CHANGES:
            happens(event.partition(".")[2])

    connect, fsync = sqlite3.connect, os.fsync

    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options)
        connection.set_trace_callback(statement)
        return connection

    def counted(file: Any) -> None:
        happens("fsync")
        fsync(file)

    for place, name, replacement in (
        (os, "fsync", counted), (sqlite3, "connect", connected), (sqlite3.dbapi2, "connect", connected),
    ):  # fmt: skip
        setattr(place, name, replacement)
    sys.addaudithook(hook)
    return counts


def _is_below(path: str, inside: str) -> bool:
    return not os.path.isabs(path) or path.startswith(inside)


if __name__ == "__main__":
    _serve()
