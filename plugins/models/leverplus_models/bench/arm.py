"""One arm of the bench, in a process of its own, so that its peak memory is its own and no arm warms another's caches.

Processes are forked from a server that has imported torch and done nothing with it, so that starting one costs no
import.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch

from leverplus_core.errors import DataError, LeverplusError
from leverplus_core.plugins.contracts import Model
from leverplus_core.recipes.settings import BeamSettings
from leverplus_core.scoring.prompt import build_prompt
from leverplus_models.bench import flops, stage
from leverplus_models.bench.geometry import MID, THREE_B, Loaded, load_demo, load_random
from leverplus_models.bench.measure import counted, forget_peak, matmul_ceiling, peak_mb
from leverplus_models.bench.stage import Order, Rows, Stage
from leverplus_models.bench.stock import Stock, paths
from leverplus_models.weights import Dtype

NAIVE, HF_BATCHED, FULL, WITHOUT = "naive", "hf-batched", "full", "no-"
HF_TOKENS = {"demo": 4096, "mid": 2048, "3b": 2048}
"""The token budgets at which hf-batched was fastest on CPU, of 1,024 to 16,384 (demo) and 1,300 to 8,192 (mid): more
than one long prompt at a time costs more in padding masks than it saves."""


@dataclass(frozen=True)
class Task:
    """What the arms of one table are given. `pixels` enlarges pictures; `distinct` gives each question its own."""

    geometry: Literal["demo", "mid", "3b"]
    dtype: Dtype
    questions: int
    pool: int
    beam: int
    shots: int
    cache: Path
    seed: int = 0
    threads: int | None = None
    pixels: int | None = None
    distinct: bool = False


@dataclass(frozen=True)
class Timed:
    """One timed run: how long, what the model computed, which prompts were asked, and, of a sample, their scores."""

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
    """`naive`, `hf-batched`, `full`, or `no-PIECE`; `engine` sets the budgets of our own."""

    def __init__(self, task: Task, name: str, engine: dict[str, Any]) -> None:
        self.task, self.name, self.engine = task, name, engine
        if task.threads:
            torch.set_num_threads(task.threads)

    def time(self, order: Order, sample: int | None) -> Timed:
        """The search, or `sample` of its prompts, from image files to stored rows, with nothing cached."""
        vlm = self._vlm(self._loaded)
        rows = self.sample(sample) if sample else []
        scores: list[float] = []
        forget_peak()
        with counted(self._loaded.model) as counts:
            began = time.perf_counter()
            if rows:
                scores = [found.sum for found in self._stage.ask(vlm, order, rows)]
            else:
                rows = self._stage.search(vlm, order)
            seconds = time.perf_counter() - began
        return Timed(seconds, len(rows), counts.images, counts.tokens, peak_mb(), rows, scores)

    def warm(self) -> None:
        """Load everything, and run one prompt, so that no first call is timed."""
        self._stage.ask(self._vlm(self._loaded), "append", [(0, ())])

    def scores(self, order: Order, rows: Rows, dtype: Dtype) -> list[float]:
        """Log-probabilities of the answers after the given prompts, computed in `dtype`."""
        loaded = self._loaded if dtype == self.task.dtype else self._loaded.to(dtype)
        return [found.sum for found in self._stage.ask(self._vlm(loaded), order, rows)]

    def sample(self, count: int) -> Rows:
        """Prompts of the search, drawn by the seed."""
        return self._stage.sample(count, self.task.seed)

    def arithmetic(self, order: Order, rows: Rows) -> Arithmetic:
        """What the prompts `rows` take, counted from their tokens."""
        stock = self._stock(self._loaded, None)
        grids: dict[str, tuple[int, int]] = {}
        numbers: dict[str, int] = {}
        reads = []
        for number, ids in rows:
            question = self._stage.questions[number]
            shown = [self._stage.demonstrations[i] for i in ids]
            prompt = build_prompt(shown, question, self._stage.settings(order))
            files = paths(prompt)
            for file in files:
                grids[file] = stock.grid(file)
                numbers.setdefault(file, len(numbers))
            answer = stage.answer_of(question)
            sequence = stock.ids(prompt, answer)
            count = len(sequence) - len(stock.ids(prompt))
            reads.append(flops.Read(self._unlike(sequence, [numbers[f] for f in files]), tuple(files), count))
        sizes = flops.Dimensions.of(self._loaded.model.config)
        return Arithmetic(len(rows), flops.prompt_by_prompt(sizes, reads, grids), flops.necessary(sizes, reads, grids))

    def ceilings(self) -> dict[str, float]:
        """FLOP/s of large matrix products on this process's threads, by dtype."""
        return {name: matmul_ceiling(getattr(torch, name)) for name in ("bfloat16", "float32")}

    def _unlike(self, ids: list[int], images: list[int]) -> tuple[int, ...]:
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
        if self.task.geometry == "demo":
            return load_demo(self.task.dtype, self.task.pixels)
        sizes = MID if self.task.geometry == "mid" else THREE_B
        return load_random(sizes, stage.okvqa_texts(), self.task.dtype, self.task.cache)

    @cached_property
    def _stage(self) -> Stage:
        task = self.task
        beams = BeamSettings(num_beams=task.beam, shots=task.shots)
        if task.distinct:
            return stage.distinct_stage(task.questions, task.pool, beams, task.cache)
        if task.geometry == "demo":
            return stage.demo_stage(task.questions, task.pool, beams, task.seed)
        return stage.okvqa_stage(task.questions, task.pool, beams, task.seed, task.cache)

    def _vlm(self, loaded: Loaded) -> Model:
        if self.name == NAIVE:
            return self._stock(loaded, None)
        if self.name == HF_BATCHED:
            return self._stock(loaded, HF_TOKENS[self.task.geometry])
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

    def __init__(self, task: Task, name: str, engine: dict[str, Any] | None = None) -> None:
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload([__name__])
        self.name = name
        self._wire, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(far, task, name, engine or {}), daemon=True)
        self._process.start()
        far.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._wire.close()
        self._process.join(0 if kind else 10)  # at a mistake or an interrupt, nobody waits for a prompt to end
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def call(self, method: str, *arguments: Any) -> Any:
        try:
            self._wire.send((method, arguments))
            kind, value = self._wire.recv()
        except (EOFError, OSError):
            self._process.join(10)
            raise DataError(
                f"the bench's process for {self.name} ended with exit code {self._process.exitcode}.",
                "Most likely memory ran out: leave out --geometry 3b, or give the arms fewer --questions.",
            ) from None
        if kind == "mistake":
            raise LeverplusError(*value)
        if kind == "bug":
            raise RuntimeError(f"in the bench's process for {self.name}:\n{value}")
        return value


def _serve(wire: Connection, task: Task, name: str, engine: dict[str, Any]) -> None:
    """Answer method calls until the wire is closed, which is how an interrupt of the parent ends this process, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    arm = Arm(task, name, engine)
    while True:
        try:
            method, arguments = wire.recv()
        except EOFError:
            return
        try:
            reply = ("ok", getattr(arm, method)(*arguments))
        except LeverplusError as error:
            reply = ("mistake", (error.what, error.hint))
        except Exception:
            reply = ("bug", traceback.format_exc())
        wire.send(reply)
