"""Several workers at one list of chunks: whoever is free takes the next; the chunk of one that is lost is given back.

A thread for each worker starts it, asks it and waits for it, so that how workers are reached (`Seat`) knows nothing of
chunks, and starting one that takes long, or never comes, keeps no other from working.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from leverplus_core.errors import ExecutionError
from leverplus_core.execution.contract import Chunk, Computed, Results

ATTEMPTS = 3
"""Workers that one chunk may cost, and times in a row that one worker may be lost or fail to start."""
SHOWN = 8
"""Workers that are shown one by one."""
CLOSING_S = 10.0
"""Seconds that the workers' threads may take to end."""


class Lost(Exception):
    """A worker is gone, with what it was computing; says how."""


class Seat(Protocol):
    """A place where a worker runs, one after another."""

    name: str

    def start(self) -> bool:
        """Start a worker and wait until its model is built; whether that makes use of being told what comes next.

        Raises Lost, and what building the model raises.
        """

    def compute(self, chunk: Chunk, following: Chunk | None) -> Results:
        """The results of a chunk; `following` is asked next. Raises Lost, and what the model raises."""

    def kill(self) -> None:
        """End the worker at once, from another thread: a call that waits for it raises Lost."""

    def close(self) -> None:
        """Let go of what is left of a worker that was killed; no other call is under way."""


@dataclass
class _Job:
    """One call of `map`."""

    chunks: Sequence[Chunk]
    todo: deque[int]
    under_way: set[int] = field(default_factory=set)
    computed: deque[Computed] = field(default_factory=deque)
    failed: dict[int, BaseException] = field(default_factory=dict)
    lost: Counter[int] = field(default_factory=Counter)

    @property
    def ended(self) -> bool:
        return not self.todo and not self.under_way

    def fail(self, index: int, error: BaseException) -> None:
        """Hand out no more chunks; those under way are waited for, and their results kept."""
        self.failed[index] = error
        self.todo.clear()


class Pool:
    """An executor whose workers sit at `seats`; `name` is how messages call it, `say` tells the person who waits."""

    def __init__(self, name: str, seats: Sequence[Seat], say: Callable[[str], None]) -> None:
        self._name, self._seats, self._say = name, seats, say
        self._changed = threading.Condition()
        self._job: _Job | None = None
        self._closed = False
        self._aborted: BaseException | None = None
        self._given_up: set[int] = set()
        self._spent: dict[str, tuple[int, float]] = {}
        self._threads: list[threading.Thread] = []

    def map(self, chunks: Sequence[Chunk]) -> Iterator[Computed]:
        """Each chunk as it is done. Where a chunk fails, those under way are given first, and the error of the earliest
        one is raised. Raises ExecutionError where no worker is left, and for a chunk that workers die of."""
        job = _Job(chunks, deque(range(len(chunks))))
        with self._changed:
            self._job = job
            self._changed.notify_all()
            if self._aborted is not None:
                job.fail(-1, self._aborted)
            elif len(self._given_up) == len(self._seats):
                self._none_left(job)
        self._begin()
        try:
            while True:
                with self._changed:
                    while not job.computed and not job.ended:
                        self._changed.wait()
                    if not job.computed:
                        break
                    done = job.computed.popleft()
                yield done
            if job.failed:
                raise job.failed[min(job.failed)]
        finally:
            with self._changed:
                job.todo.clear()
                self._job = None

    def abort(self, error: BaseException) -> None:
        """Wait for nothing any more: `map` raises `error`. From any thread."""
        with self._changed:
            self._aborted = error
            if self._job is not None:
                self._job.fail(-1, error)
                self._job.under_way.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """End all workers, and say what each of them did."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for seat in self._seats:
            with suppress(Exception):  # whatever keeps one from ending must not keep the others
                seat.kill()
        until = time.monotonic() + CLOSING_S
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0))
        for seat, thread in zip(self._seats, self._threads, strict=False):
            if not thread.is_alive():
                with suppress(Exception):
                    seat.close()
        if self._spent:
            self._say(f"{self._name}: {_rates(self._spent)}")
            self._spent.clear()

    def _begin(self) -> None:
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._serve, args=(number,), name=f"leverplus-{seat.name}", daemon=True)
                for number, seat in enumerate(self._seats)
            ]
            for thread in self._threads:
                thread.start()

    # --- the thread of one seat ---------------------------------------------------------------------------------------

    def _serve(self, number: int) -> None:
        seat, ready, ahead, in_a_row = self._seats[number], False, False, 0
        job: _Job | None = None
        mine: list[int] = []  # what is computed, and what is reserved to come after it
        while (job := self._take(job, mine, 1 + ahead if ready else 0)) is not None:
            began = time.perf_counter()
            try:
                if not ready:
                    ahead, ready = seat.start(), True
                elif mine:
                    following = job.chunks[mine[1]] if len(mine) > 1 else None
                    self._keep(job, mine, seat, seat.compute(job.chunks[mine[0]], following), began)
                    in_a_row = 0
            except Lost as lost:
                ready, in_a_row = False, in_a_row + 1
                self._give_back(job, mine, seat, lost)
                if self._give_up(number, lost, in_a_row):
                    return
            except BaseException as error:  # of the model, or in building it, where no other worker will do better
                with self._changed:
                    job.under_way -= set(mine)
                    job.fail(mine[0] if mine else -1, error)
                    mine.clear()
                    self._changed.notify_all()

    def _take(self, job: _Job | None, mine: list[int], depth: int) -> _Job | None:
        """Wait for work, and take up to `depth` chunks of it; None where there will be none any more.

        A second chunk is taken only while each worker has one: at the end it would wait beside others that are idle.
        """
        with self._changed:
            if job is not None and mine and (job is not self._job or job.failed):
                job.under_way -= set(mine)
                mine.clear()
                self._changed.notify_all()
            while not self._closed and not mine and (self._job is None or not self._job.todo):
                self._changed.wait()
            if self._closed or self._job is None:
                return None
            todo = self._job.todo
            while todo and len(mine) < depth and (not mine or len(todo) >= len(self._seats)):
                mine.append(todo.popleft())
            self._job.under_way |= set(mine)
            return self._job

    def _keep(self, job: _Job, mine: list[int], seat: Seat, results: Results, began: float) -> None:
        with self._changed:
            index = mine.pop(0)
            job.under_way.discard(index)
            job.computed.append(Computed(index, results, seat.name))
            prompts, seconds = self._spent.get(seat.name, (0, 0.0))
            self._spent[seat.name] = prompts + len(results), seconds + time.perf_counter() - began
            self._changed.notify_all()

    def _give_back(self, job: _Job, mine: list[int], seat: Seat, lost: Lost) -> None:
        """A lost worker's chunks are the next ones; a chunk that workers die of ends the job."""
        with self._changed:
            if self._closed or not mine:
                return
            index, prompts = mine[0], len(job.chunks[mine[0]].prompts)
            job.under_way -= set(mine)
            job.lost[index] += 1
            if job.lost[index] >= ATTEMPTS:
                job.fail(
                    index,
                    ExecutionError(
                        f"{ATTEMPTS} workers were lost over the same {prompts:,} prompts; the last one {lost}.",
                        "Often memory has run out: start fewer workers, or lower engine.tokens_per_batch.",
                    ),
                )
            elif not job.failed:
                job.todo.extendleft(reversed(mine))
            mine.clear()
            self._changed.notify_all()
        self._say(f"{seat.name} {lost}: its {prompts:,} prompts are computed again")

    def _give_up(self, number: int, lost: Lost, in_a_row: int) -> bool:
        """Whether no worker is started at this seat any more."""
        with self._changed:
            if self._closed or in_a_row < ATTEMPTS:
                return self._closed
            self._given_up.add(number)
            if len(self._given_up) == len(self._seats) and self._job is not None:
                self._none_left(self._job, f"; the last one {lost}")
            self._changed.notify_all()
        self._say(f"{self._seats[number].name} {lost}, {in_a_row} times in a row: it is not started again")
        return True

    def _none_left(self, job: _Job, why: str = "") -> None:
        hint = "What was measured is kept: the same command goes on from it."
        job.fail(-1, ExecutionError(f"{self._name}: no worker is left{why}.", hint))


def _rates(spent: Mapping[str, tuple[int, float]]) -> str:
    """What each worker did, in a line; of many, how far they lie apart."""
    rates = {name: prompts / max(seconds, 1e-9) for name, (prompts, seconds) in spent.items()}
    if len(spent) > SHOWN:
        low, high = min(rates.values()), max(rates.values())
        return f"{sum(n for n, _ in spent.values()):,} prompts, {len(spent)} workers, {low:,.0f} to {high:,.0f}/s each"
    return "; ".join(f"{name} {spent[name][0]:,} prompts, {rate:,.0f}/s" for name, rate in sorted(rates.items()))
