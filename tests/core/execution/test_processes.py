"""Workers in real processes: what they compute, what they raise, how they are lost, and that none stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leverplus_core import AnswerLogprob, DataError, LeverplusWarning, PluginError
from leverplus_core.errors import ExecutionError, PromptError
from leverplus_core.execution.contract import LogprobChunk
from leverplus_core.execution.pool import Pool
from leverplus_core.execution.processes import ProcessSeat, gpus
from leverplus_core.processes import has_ended, this_host
from tests.core.execution.asking import ask, telling, tiny_spec

WAIT_S = 60.0


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    spec = tiny_spec(tmp_path_factory.mktemp("pool"), {"nap": 0.05})
    pool = Pool("local:2", [ProcessSeat(1, spec, "5"), ProcessSeat(2, spec, "7")], lambda message: None)
    yield pool
    pool.close()


def test_two_processes_with_a_gpu_each_compute_every_chunk(pool: Pool) -> None:
    found = ask(pool, [telling("a", f"{n}", "process", "gpu") for n in range(30)])
    assert [answers[:2] for answers in found] == [["a", f"{n}"] for n in range(30)]
    seen: set[tuple[object, ...]] = set()
    until = time.monotonic() + WAIT_S  # one may have done it all while the other started
    while len(seen) < 2 and time.monotonic() < until:
        seen |= {tuple(answers) for answers in ask(pool, [telling("gpu", "process")] * 4)}
    assert {gpu for gpu, _ in seen} == {"5", "7"}
    assert len({process for _, process in seen} | {str(os.getpid())}) == 3
    asked = LogprobChunk(telling("x", "y").prompts, ["red", "green"], True)
    assert ask(pool, [asked]) == [[AnswerLogprob(-3.0, 2), AnswerLogprob(-5.0, 2)]]


def test_what_a_model_prints_damages_no_result_and_what_it_warns_of_is_said_here(pool: Pool) -> None:
    assert ask(pool, [telling("print", "b")]) == [["print", "b"]]
    with pytest.warns(LeverplusWarning, match="the model warns"):
        assert ask(pool, [telling("warn")]) == [["warn"]]


def test_errors_of_the_model_are_raised_here_with_their_trace(pool: Pool) -> None:
    with pytest.raises(PromptError, match="too long") as refused:
        ask(pool, [telling("refuse")])
    assert refused.value.prompt == telling("refuse").prompts[0] and refused.value.hint == "Show fewer."
    with pytest.raises(DataError, match=r"the data are bad\.$"):
        ask(pool, [telling("data")])
    with pytest.raises(PluginError, match="raised ZeroDivisionError") as bug:
        ask(pool, [telling("bug")])
    assert "tiny_model.py" in str(bug.value.__cause__) and "1 // 0" in str(bug.value.__cause__)


def test_a_killed_process_is_replaced_and_its_chunk_computed_again(pool: Pool) -> None:
    process = int(str(ask(pool, [telling("process")])[0][0]))
    killer = threading.Timer(0.2, os.kill, (process, signal.SIGKILL))
    killer.start()
    chunks = [telling(f"{n}", "process") for n in range(40)]
    found = ask(pool, chunks)
    killer.join()
    assert [answers[0] for answers in found] == [f"{n}" for n in range(40)]
    assert not {str(process)} & {str(answers[1]) for answers in found[-3:]}


def test_a_chunk_that_ends_every_process_is_one_line(pool: Pool) -> None:
    with pytest.raises(ExecutionError, match=r"3 workers were lost over the same 1 prompts; .* exit code 3"):
        ask(pool, [telling("exit")])


def test_another_checkpoint_or_version_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHECKPOINT", "one")
    spec = tiny_spec(tmp_path, {"checkpoint": "CHECKPOINT"})
    monkeypatch.setenv("CHECKPOINT", "two")
    pool = Pool("local:1", [ProcessSeat(1, spec, None)], lambda message: None)
    try:
        with pytest.raises(PluginError, match=r"another model 'tiny'.*content is 'two' here and 'one' there") as wrong:
            ask(pool, [telling("a")])
        assert "\n" not in str(wrong.value)
    finally:
        pool.close()


def test_each_worker_has_a_gpu_in_turn_where_there_are_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert gpus(3) == ["3", "GPU-5", "3"]
    for one_or_none in ("2", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", one_or_none)
        assert gpus(2) == [None, None]


DRIVER = """
import sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.core.execution.asking import ask, telling, tiny_spec
from leverplus_core.execution.pool import Pool
from leverplus_core.execution.processes import ProcessSeat
spec = tiny_spec(Path({folder!r}), {{"nap": 0.0}})
pool = Pool("local:2", [ProcessSeat(n, spec, None) for n in (1, 2)], lambda message: None)
found = set()
while len(found) < 2:
    found |= {{answers[0] for answers in ask(pool, [telling("process")] * 20)}}
print(*found, flush=True)
for done in pool.map([telling(*["x"] * 10)] * 10_000_000):
    pass
"""


def test_processes_end_with_the_one_that_started_them_though_it_is_killed(tmp_path: Path) -> None:
    code = textwrap.dedent(DRIVER).format(root=str(Path(__file__).parents[3]), folder=str(tmp_path))
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        workers = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(workers) == 2 and not any(has_ended(this_host(), pid) for pid in workers)
    finally:
        driver.kill()
        driver.communicate()
    until = time.monotonic() + WAIT_S
    while not all(has_ended(this_host(), pid) for pid in workers):
        assert time.monotonic() < until, "a worker goes on without the process that started it"
        time.sleep(0.05)
