"""Chunks go to whoever is free, and come back from whoever is lost. The workers are threads under a test's hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from leverplus_core import DataError, Decoding, Prompt, Turn
from leverplus_core.errors import ExecutionError
from leverplus_core.execution.contract import Chunk, GenerateChunk, Results
from leverplus_core.execution.pool import ATTEMPTS, Lost, Pool

WAIT_S = 30.0


def _chunks(count: int) -> list[Chunk]:
    return [GenerateChunk([Prompt((Turn("user", (str(n),)),))], Decoding()) for n in range(count)]


def _number(chunk: Chunk) -> int:
    return int(str(chunk.prompts[0].turns[0].content[0]))


class Directed:
    """A worker that answers a chunk with its number, after `before(number)`; a GPU's makes use of what comes next."""

    def __init__(self, name: str, before: Callable[[int], None] = lambda number: None, ahead: bool = False) -> None:
        self.name, self.before, self.ahead = name, before, ahead
        self.starts = 0
        self.asked: list[tuple[int, int | None]] = []
        self.killed = threading.Event()

    def start(self) -> bool:
        self.starts += 1
        return self.ahead

    def compute(self, chunk: Chunk, following: Chunk | None) -> Results:
        self.asked.append((_number(chunk), None if following is None else _number(following)))
        self.before(_number(chunk))
        return [str(_number(chunk))]

    def kill(self) -> None:
        self.killed.set()

    def close(self) -> None:
        assert self.killed.is_set()


Open = Callable[[Sequence[Directed]], Pool]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def opened(said: list[str]) -> Iterator[Open]:
    pools: list[Pool] = []

    def make(seats: Sequence[Directed]) -> Pool:
        pools.append(Pool("local:2", seats, said.append))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def _results(pool: Pool, count: int) -> dict[int, str]:
    found = [(done.index, str(done.results[0])) for done in pool.map(_chunks(count))]
    assert len(dict(found)) == len(found) == count
    return dict(found)


def test_each_chunk_is_computed_once_by_whoever_is_free(opened: Open, said: list[str]) -> None:
    both = threading.Barrier(2, timeout=WAIT_S)  # the first two chunks are with two workers at one time
    seats = [Directed(f"worker {n}", lambda number: both.wait() if number < 2 else None) for n in (1, 2)]
    pool = opened(seats)
    assert _results(pool, 7) == {n: str(n) for n in range(7)}
    assert sorted(n for seat in seats for n, _ in seat.asked) == list(range(7))
    assert _results(pool, 2) == {0: "0", 1: "1"} and [seat.starts for seat in seats] == [1, 1]
    pool.close()
    assert len(said) == 1 and said[0].startswith("local:2: worker 1 ") and "worker 2" in said[0]


def test_the_chunk_of_a_lost_worker_is_computed_by_another(opened: Open, said: list[str]) -> None:
    lost = threading.Event()

    def dies(number: int) -> None:
        if not lost.is_set():
            lost.set()
            raise Lost("was killed by signal 9")

    def waits(number: int) -> None:
        lost.wait(WAIT_S)

    seats = [Directed("worker 1", dies), Directed("worker 2", waits)]
    assert _results(opened(seats), 5) == {n: str(n) for n in range(5)}
    assert any("was killed by signal 9: its 1 prompts are computed again" in line for line in said)


def test_prompts_that_every_worker_dies_of_are_one_line(opened: Open) -> None:
    def dies(number: int) -> None:
        if number == 1:
            raise Lost("was killed by signal 9")

    pool = opened([Directed("worker 1", dies), Directed("worker 2", dies)])
    with pytest.raises(ExecutionError, match=f"{ATTEMPTS} workers were lost over the same 1 prompts.*signal 9"):
        _results(pool, 3)


def test_when_no_worker_is_left_one_line_says_why(opened: Open) -> None:
    class Absent(Directed):
        def start(self) -> bool:
            self.starts += 1
            raise Lost("ended with exit code 1")

    seats = [Absent("worker 1"), Absent("worker 2")]
    pool = opened(seats)
    with pytest.raises(ExecutionError, match="no worker is left; the last one ended with exit code 1") as stopped:
        _results(pool, 3)
    assert "\n" not in str(stopped.value) and [seat.starts for seat in seats] == [ATTEMPTS, ATTEMPTS]
    with pytest.raises(ExecutionError, match="no worker is left"):
        _results(pool, 3)


def test_a_worker_that_never_starts_keeps_no_other_from_working(opened: Open) -> None:
    class Pending(Directed):
        def start(self) -> bool:
            self.killed.wait(WAIT_S)
            raise Lost("was lost")

    assert _results(opened([Pending("worker 1"), Directed("worker 2")]), 4) == {n: str(n) for n in range(4)}


def test_what_is_under_way_is_kept_when_a_chunk_fails_and_the_earliest_error_is_raised(opened: Open) -> None:
    all_three = threading.Barrier(3, timeout=WAIT_S)

    def before(number: int) -> None:
        if number < 3:
            all_three.wait()
        if number in (0, 1):
            raise DataError(f"chunk {number}")

    found = []
    with pytest.raises(DataError, match="chunk 0"):
        for done in opened([Directed(f"worker {n}", before) for n in (1, 2, 3)]).map(_chunks(9)):
            found.append(done.index)
    assert 2 in found and not {0, 1} & set(found)


def test_a_model_that_cannot_be_built_ends_the_work(opened: Open) -> None:
    class Broken(Directed):
        def start(self) -> bool:
            raise DataError("no such checkpoint")

    with pytest.raises(DataError, match="no such checkpoint"):
        _results(opened([Broken("worker 1"), Broken("worker 2")]), 3)


def test_a_worker_is_told_what_it_computes_next_while_there_is_work_for_all(opened: Open) -> None:
    seat = Directed("worker 1", ahead=True)
    _results(opened([seat]), 4)
    assert seat.asked == [(0, 1), (1, 2), (2, 3), (3, None)]
    seats = [Directed("worker 1", ahead=True), Directed("worker 2", ahead=True)]
    _results(opened(seats), 9)
    for seat in seats:
        for (_, expected), (computed, _) in zip(seat.asked, seat.asked[1:], strict=False):
            assert expected in (None, computed)


def test_what_a_lost_worker_had_reserved_is_given_back_too(opened: Open) -> None:
    deaths: list[int] = []

    def dies(number: int) -> None:
        if not deaths:
            deaths.append(number)
            raise Lost("was lost")

    assert _results(opened([Directed("worker 1", dies, ahead=True)]), 5) == {n: str(n) for n in range(5)}


def test_whoever_asks_may_stop_in_the_middle_and_ask_again(opened: Open) -> None:
    pool = opened([Directed("worker 1", ahead=True), Directed("worker 2")])
    for _ in pool.map(_chunks(20)):
        break
    assert _results(pool, 3) == {n: str(n) for n in range(3)}
