"""Workers in processes of this machine, one GPU each where there are several.

A worker reads calls from its standard input and writes replies to its standard output, both pickled. Its input ends
with the process that asks, however that dies, and the worker with its input: nothing is left behind. Ctrl-C reaches
the process that asks alone, which ends its workers.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
from typing import Any

from leverplus_core.execution.contract import Chunk, Results
from leverplus_core.execution.pool import Lost
from leverplus_core.execution.worker import ModelSpec, Reply, Worker

VISIBLE = "CUDA_VISIBLE_DEVICES"
_RUN = "from leverplus_core.execution.processes import serve; serve()"


class ProcessSeat:
    """A seat for a process of its own; `gpu` is the one that it sees, None for all."""

    def __init__(self, number: int, spec: ModelSpec, gpu: str | None) -> None:
        self._label = f"worker {number}" + (f" on GPU {gpu}" if gpu is not None else "")
        self.name = self._label
        self._spec, self._gpu = spec, gpu
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False

    def start(self) -> bool:
        """Start a process and build the model in it."""
        # The import path of this process, whatever started it; -P: not the working folder besides.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
        if self._gpu is not None:
            environment[VISIBLE] = self._gpu
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _RUN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # a Ctrl-C of the terminal is not for the workers
        )
        self.name = f"{self._label} (process {self._process.pid})"
        if self._killed:  # meanwhile
            self._process.kill()
        return bool(self._call("start", self._spec))

    def compute(self, chunk: Chunk, following: Chunk | None) -> Results:
        """The results of a chunk."""
        results: Results = self._call("compute", chunk, following)
        return results

    def kill(self) -> None:
        """Kill the process: its output ends."""
        self._killed = True
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """Wait for the process and close its pipes."""
        self._end()

    def _call(self, method: str, *arguments: object) -> Any:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            pickle.dump((method, arguments), process.stdin, pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            reply: Reply = pickle.load(process.stdout)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            raise Lost(self._end()) from None
        return reply.get()

    def _end(self) -> str:
        """End the process, if there is one, and say how it ended."""
        process, self._process = self._process, None
        if process is None:
            return ""
        process.kill()
        code = process.wait()
        for stream in (process.stdin, process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:  # what was left to write has no reader
                continue
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def gpus(workers: int) -> list[str | None]:
    """The GPU of each worker, in turn; None for all where there are fewer than two."""
    import torch

    visible = os.environ.get(VISIBLE)
    names = [str(i) for i in range(torch.cuda.device_count())] if visible is None else visible.split(",")
    return [names[i % len(names)] if len(names) > 1 else None for i in range(workers)]


def serve() -> None:
    """The life of a worker process: answer calls until the input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the model prints must not damage the replies
    calls: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()

    def read() -> None:
        try:
            while True:
                calls.put(pickle.load(sys.stdin.buffer))
        except BaseException:
            os._exit(0)  # the process that asks has ended; what is computed has no reader

    threading.Thread(target=read, daemon=True).start()
    worker = Worker()
    while True:
        method, arguments = calls.get()
        pickle.dump(getattr(worker, method)(*arguments), out, pickle.HIGHEST_PROTOCOL)
        out.flush()
