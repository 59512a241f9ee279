"""One arm of the comparison, in a process of its own: its peak memory is its own, and no arm warms another's caches.

Processes are forked from a server that has imported torch and computed nothing, so that starting one costs no import.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from leverplus_core import BeamSettings, DataError, Dtype, Model, build_prompt, most_frequent
from tools.bench import flops, workload
from tools.bench.geometry import MID, THREE_B, Loaded, load_demo, load_random
from tools.bench.measure import counted, matmul_ceiling, peak_mb, reset_peak
from tools.bench.stock import Stock, paths
from tools.bench.workload import Order, Rows, Workload

NAIVE, HF_BATCHED, FULL, WITHOUT = "naive", "hf-batched", "full", "no-"
HF_TOKENS = {"demo": 4096, "mid": 2048, "3b": 2048}
"""The token budgets at which hf-batched was fastest on CPU, of 1,024 to 16,384 (demo) and 1,300 to 8,192 (mid): more
than one long prompt at a time costs more in padding masks than it saves."""


@dataclass(frozen=True)
class Case:
    """What the arms of one table are given.

    `pixels` enlarges images, `distinct` gives each question its own, `cpu_time` measures CPU seconds.
    """

    geometry: Literal["demo", "mid", "3b"]
    dtype: Dtype
    questions: int
    pool: int
    num_beams: int
    shots: int
    cache: Path
    seed: int = 0
    threads: int | None = None
    pixels: int | None = None
    distinct: bool = False
    cpu_time: bool = False


@dataclass(frozen=True)
class Timed:
    """One timed run: seconds, what the model computed, the prompts, and, for a sample, their scores."""

    seconds: float
    prompts: int
    images: int
    tokens: int
    peak_mb: float
    rows: Rows
    scores: list[float]


@dataclass(frozen=True)
class Arithmetic:
    """What a search's prompts take, one by one and at the least."""

    prompts: int
    prompt_by_prompt: flops.Work
    necessary: flops.Work


class Arm:
    """`naive`, `hf-batched`, `full`, or `no-SWITCH`; `engine` sets the budgets of the engine."""

    def __init__(self, case: Case, name: str, engine: dict[str, Any]) -> None:
        self.case, self.name, self.engine = case, name, engine
        if case.threads:
            torch.set_num_threads(case.threads)

    def time(self, order: Order, sample: int | None) -> Timed:
        """Time the search, or `sample` of its prompts, from image files to stored rows, with nothing cached."""
        model = self._model(self._loaded)
        rows = self.sample(sample) if sample else []
        scores: list[float] = []
        clock = time.process_time if self.case.cpu_time else time.perf_counter
        reset_peak()
        with counted(self._loaded.model) as counts:
            began = clock()
            if rows:
                scores = [found.sum for found in self._workload.score(model, order, rows)]
            else:
                rows = self._workload.search(model, order)
            seconds = clock() - began
        return Timed(seconds, len(rows), counts.images, counts.tokens, peak_mb(), rows, scores)

    def warm(self) -> None:
        """Load everything and run one prompt, so that no first call is timed."""
        self._workload.score(self._model(self._loaded), "append", [(0, ())])

    def scores(self, order: Order, rows: Rows, dtype: Dtype) -> list[float]:
        """Log-probabilities of the answers after the given prompts, computed in `dtype`."""
        loaded = self._loaded if dtype == self.case.dtype else self._loaded.to(dtype)
        return [found.sum for found in self._workload.score(self._model(loaded), order, rows)]

    def sample(self, count: int) -> Rows:
        """Prompts of the search, drawn by the seed."""
        return self._workload.sample(count, self.case.seed)

    def arithmetic(self, order: Order, rows: Rows) -> Arithmetic:
        """What the prompts `rows` take, counted from their tokens."""
        stock = self._stock(self._loaded, None)
        grids: dict[str, tuple[int, int]] = {}
        numbers: dict[str, int] = {}
        reads = []
        for number, ids in rows:
            question = self._workload.questions[number]
            shown = [self._workload.demonstrations[i] for i in ids]
            prompt = build_prompt(shown, question, self._workload.settings(order))
            files = paths(prompt)
            for file in files:
                grids[file] = stock.grid(file)
                numbers.setdefault(file, len(numbers))
            answer = most_frequent(question.answers)
            sequence = stock.ids(prompt, answer)
            count = len(sequence) - len(stock.ids(prompt))
            keyed = self._image_keys(sequence, [numbers[f] for f in files])
            reads.append(flops.Read(keyed, tuple(files), count))
        sizes = flops.Dimensions.of(self._loaded.model.config)
        return Arithmetic(len(rows), flops.prompt_by_prompt(sizes, reads, grids), flops.necessary(sizes, reads, grids))

    def ceilings(self) -> dict[str, float]:
        """FLOP/s of large matrix products on this process's threads, by dtype."""
        return {name: matmul_ceiling(getattr(torch, name)) for name in ("bfloat16", "float32")}

    def _image_keys(self, ids: list[int], images: list[int]) -> tuple[int, ...]:
        """Ids in which the tokens of different images differ."""
        token = self._loaded.model.config.image_token_id
        made, image, within = [], -1, False
        for i in ids:
            image += i == token and not within
            within = i == token
            made.append(-1 - images[image] if within else i)
        return tuple(made)

    @cached_property
    def _loaded(self) -> Loaded:
        if self.case.geometry == "demo":
            return load_demo(self.case.dtype, self.case.pixels)
        sizes = MID if self.case.geometry == "mid" else THREE_B
        return load_random(sizes, workload.okvqa_texts(), self.case.dtype, self.case.cache)

    @cached_property
    def _workload(self) -> Workload:
        case = self.case
        beams = BeamSettings(num_beams=case.num_beams, shots=case.shots)
        if case.distinct:
            return workload.distinct_workload(case.questions, case.pool, beams, case.cache)
        if case.geometry == "demo":
            return workload.demo_workload(case.questions, case.pool, beams, case.seed)
        return workload.okvqa_workload(case.questions, case.pool, beams, case.seed, case.cache)

    def _model(self, loaded: Loaded) -> Model:
        if self.name == NAIVE:
            return self._stock(loaded, None)
        if self.name == HF_BATCHED:
            return self._stock(loaded, HF_TOKENS[self.case.geometry])
        off = {self.name.removeprefix(WITHOUT): False} if self.name.startswith(WITHOUT) else {}
        return loaded.backend({**self.engine, **off})

    def _stock(self, loaded: Loaded, tokens_per_batch: int | None) -> Stock:
        return Stock(
            model=loaded.model,
            tokenizer=loaded.tokenizer,
            processor=loaded.processor,
            tokens_per_batch=tokens_per_batch,
        )


class Remote:
    """An `Arm` in another process. What it raises is raised here; a process that dies is a DataError."""

    def __init__(self, case: Case, name: str, engine: dict[str, Any] | None = None) -> None:
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload([__name__])
        self.name = name
        self._pool = ProcessPoolExecutor(1, context, _start, (case, name, engine or {}))

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the arm."""
        try:
            return self._pool.submit(_call, method, arguments).result()
        except BrokenProcessPool:
            raise DataError(
                f"the bench's process for {self.name} ended.",
                "Most likely memory ran out: leave out --geometry 3b, or use fewer --questions.",
            ) from None


def _start(case: Case, name: str, engine: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    globals()["_arm"] = Arm(case, name, engine)


def _call(method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(globals()["_arm"], method)(*arguments)
