"""While a run lasts, a thread says so every few seconds: a process that is killed can say nothing afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from leverplus_core.errors import LeverplusError
from leverplus_core.registry.liveness import BEAT_S


class Heartbeat:
    """Calls `beat` every `period` seconds, and what `during` adds. One that fails is called again the next time: what
    keeps the registry from being written is told by the run itself."""

    def __init__(self, beat: Callable[[], None], period: float = BEAT_S) -> None:
        self._called, self._period = [beat], period
        self._calling, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    @contextmanager
    def during(self, keep: Callable[[], None]) -> Iterator[None]:
        """Call `keep`, too, and once more when the block fails; never twice at once."""
        with self._calling:
            self._called.insert(0, keep)
        try:
            yield
        except BaseException:
            with self._calling, suppress(LeverplusError):  # a full disk is told by what it stopped
                keep()
            raise
        finally:
            with self._calling:
                self._called.remove(keep)

    def _run(self) -> None:
        while not self._ended.wait(self._period):
            with self._calling:
                for call in self._called:
                    with suppress(LeverplusError):
                        call()
