"""One arm of the comparison, in a process of its own: its peak memory is its own, and no arm warms another's caches.

Processes are forked from a server that has imported torch and computed nothing, so that starting one costs no import.
On a GPU the arms share a process and the model's weights: a device tells the peak memory of each run by itself.
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
from typing import Any, Literal, Protocol

import torch

from leverplus_core import BeamSettings, DataError, Decoding, Dtype, Model, Prompt, build_prompt, most_frequent
from tools.bench import flops, workload
from tools.bench.geometry import MID, THREE_B, Loaded, load_demo, load_random
from tools.bench.measure import counted, launches, matmul_ceiling, peak_mb, reset_peak, wait
from tools.bench.stock import Stock, paths
from tools.bench.workload import Order, Rows, Workload

NAIVE, HF_BATCHED, HF_CACHE, FULL, WITHOUT = "naive", "hf-batched", "hf-image-cache", "full", "no-"
HF_TOKENS = {"demo": 4096, "mid": 2048, "3b": 2048}
"""The token budgets at which hf-batched was fastest on CPU, of 1,024 to 16,384 (demo) and 1,300 to 8,192 (mid): more
than one long prompt at a time costs more in padding masks than it saves."""
GPU_HF_TOKENS = 16_384
"""On a GPU: 15% faster than 4,096."""


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
    device: Literal["cpu", "cuda"] = "cpu"


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
class Profiled:
    """What a GPU ran for some prompts: kernels, the seconds they took, and those of the run without a profiler."""

    prompts: int
    launches: int
    busy: float
    seconds: float


@dataclass(frozen=True)
class Answered:
    """Answers generated: seconds, prompts, the device's peak memory, what is necessary, and the texts."""

    seconds: float
    prompts: int
    peak_mb: float
    necessary: flops.Work
    texts: list[str]


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
        device, of_images = self.case.device, 0.0
        reset_peak(device)
        with counted(self._loaded.model) as counts:
            wait(device)
            began = clock()
            if rows and isinstance(model, Stock) and model.image_cache:
                # A sample shows nearly as many images as the search: a prompt's share of the search's is counted.
                files = [path for prompt in self._prompts(order, rows) for path in paths(prompt)]
                model.encode(files)
                wait(device)
                each = (clock() - began) / len(set(files))
                of_images = each * self._workload.image_count / self._workload.prompt_count * len(rows)
                began = clock()
            if rows:
                scores = [found.sum for found in self._workload.score(model, order, rows)]
            else:
                rows = self._workload.search(model, order)
            wait(device)
            seconds = clock() - began + of_images
        return Timed(seconds, len(rows), counts.images, counts.tokens, peak_mb(device), rows, scores)

    def profile(self, order: Order, sample: int | None, seconds: float) -> Profiled:
        """Count the kernels of what `time` runs; `seconds` is what it took there."""
        with launches(self.case.device) as found:
            timed = self.time(order, sample)
        return Profiled(timed.prompts, found.count, found.seconds, seconds)

    def answer(self, chains: int, decoding: Decoding) -> Answered:
        """Time the answers to prompts of one demonstration, two and so on, four at most, with nothing cached."""
        model, device = self._model(self._loaded), self.case.device
        rows = self._workload.chains(chains, min(4, self.case.pool), self.case.seed)
        prompts = self._prompts("append", rows)
        reset_peak(device)
        wait(device)
        began = time.perf_counter()
        texts = model.generate(prompts, decoding)
        wait(device)
        seconds = time.perf_counter() - began
        least = self.arithmetic("append", rows, after="").necessary
        sizes, stock = flops.Dimensions.of(self._loaded.model.config), self._stock(self._loaded, None)
        steps = (decoding.max_new_tokens - 1) * decoding.num_beams  # tokens that are read after the prompt
        lengths = [len(stock.ids(prompt)) for prompt in prompts]
        more = sum(flops.text_flops(sizes, steps, steps * length, 1 + steps) for length in lengths)
        work = flops.Work(least.images, least.tokens + steps * len(prompts), least.flops + more)
        return Answered(seconds, len(prompts), peak_mb(device), work, texts)

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

    def _prompts(self, order: Order, rows: Rows) -> list[Prompt]:
        shown, settings = self._workload.demonstrations, self._workload.settings(order)
        return [build_prompt([shown[i] for i in ids], self._workload.questions[n], settings) for n, ids in rows]

    def arithmetic(self, order: Order, rows: Rows, after: str | None = None) -> Arithmetic:
        """What the prompts `rows` take, counted from their tokens; `after` stands in place of every answer."""
        stock = self._stock(self._loaded, None)
        grids: dict[str, tuple[int, int]] = {}
        numbers: dict[str, int] = {}
        reads = []
        for (number, _), prompt in zip(rows, self._prompts(order, rows), strict=True):
            files = paths(prompt)
            for file in files:
                grids[file] = stock.grid(file)
                numbers.setdefault(file, len(numbers))
            answer = most_frequent(self._workload.questions[number].answers) if after is None else after
            sequence = stock.ids(prompt, answer)
            count = len(sequence) - len(stock.ids(prompt))
            keyed = self._image_keys(sequence, [numbers[f] for f in files])
            reads.append(flops.Read(keyed, tuple(files), count))
        sizes = flops.Dimensions.of(self._loaded.model.config)
        return Arithmetic(len(rows), flops.prompt_by_prompt(sizes, reads, grids), flops.necessary(sizes, reads, grids))

    def ceilings(self) -> dict[str, float]:
        """FLOP/s of large matrix products on this process's threads, by dtype."""
        device = self.case.device
        return {name: matmul_ceiling(getattr(torch, name), device=device) for name in ("bfloat16", "float32")}

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
            return load_demo(self.case.dtype, self.case.pixels, self.case.device)
        sizes = MID if self.case.geometry == "mid" else THREE_B
        return load_random(sizes, workload.okvqa_texts(), self.case.dtype, self.case.cache, self.case.device)

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
        if self.name in (HF_BATCHED, HF_CACHE):
            tokens = HF_TOKENS[self.case.geometry] if self.case.device == "cpu" else GPU_HF_TOKENS
            return self._stock(loaded, tokens, self.name == HF_CACHE)
        off = {self.name.removeprefix(WITHOUT): False} if self.name.startswith(WITHOUT) else {}
        return loaded.backend({**self.engine, **off})

    def _stock(self, loaded: Loaded, tokens_per_batch: int | None, image_cache: bool = False) -> Stock:
        return Stock(
            model=loaded.model,
            tokenizer=loaded.tokenizer,
            processor=loaded.processor,
            tokens_per_batch=tokens_per_batch,
            image_cache=image_cache,
        )


class Running(Protocol):
    """An arm, wherever it runs."""

    name: str

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the arm."""


class Local:
    """An `Arm` of this process, with the model and the workload of the arm `like`."""

    def __init__(self, case: Case, name: str, like: Local | None) -> None:
        self.name, self._arm = name, Arm(case, name, {})
        if like is not None:
            vars(self._arm).update(_loaded=like._arm._loaded, _workload=like._arm._workload)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the arm."""
        return getattr(self._arm, method)(*arguments)


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
