"""How long a run takes and what it costs on 1, 8 and 64 GPUs: GPU rates as measured, the driver's measured here.

The driver is the process that builds prompts, looks them up in the response cache, cuts and sends chunks, and keeps the
answers. What it does between two calls of the workers is serial, since they wait meanwhile; what it does while they
compute holds them up only where they are faster. Both are measured with the real code and workers that answer at once.
With --output, writes the tables between two marks of a page.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import pickle
import random
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from leverplus_core.execution.contract import Chunk, Computed
from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.plan import Plan, StagePlan, Throughput, plan
from leverplus_core.pipeline.stages import propose
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import BeamSettings, PromptSettings
from leverplus_core.records import AnswerLogprob, Decoding, Demonstration, Image, Prediction, Question
from leverplus_core.registry.registry import Registry, RunRecord
from leverplus_core.scoring import chunks as chunk_sizes
from leverplus_core.scoring.beam_search import beam_search, beam_search_cost, in_blocks
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.scoring.scorer import Scorer

GPU = Throughput(102.0, math.inf, 58.0, "one H200, Qwen2.5-VL-3B, docs/performance.md; its photos are in the rates")
GPUS = (1, 8, 64)
POOL, BEAMS, BANK = 64, BeamSettings(num_beams=5, shots=2), 20_000
BEGIN, END = "<!-- simulation: begin -->", "<!-- simulation: end -->"
WHOLE = ("dataset.train_limit=null", "dataset.validation_limit=null", "scoring.questions=null")
RUNS = {
    "OK-VQA, 800 questions searched": ("okvqa-qwen2.5-vl-3b", ()),
    "OK-VQA, all 9,009": ("okvqa-qwen2.5-vl-3b", ("scoring.questions=null", "evaluation.sizes=[5046]")),
    "VQAv2, 20,000": ("vqav2-qwen2.5-vl-3b", ("scoring.questions=20000", "evaluation.sizes=[5000]")),
    "VQAv2, all 443,757": ("vqav2-qwen2.5-vl-3b", (*WHOLE, "evaluation.sizes=[214354]")),
}


class AtOnce:
    """Workers that answer at once; `began` and `ended` are the processor's seconds around each call of them."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []
        self.sizes: list[int] = []
        self.pickling = 0.0
        self.bytes = 0

    def map(self, chunks: Sequence[Chunk]) -> Iterator[Computed]:
        began = time.process_time()
        for i, chunk in enumerate(chunks):
            yield Computed(i, [AnswerLogprob(-1.0 - (row * 7919 % 997) / 997, 2) for row in range(len(chunk.prompts))])
        self.spans.append((began, time.process_time()))
        for chunk in chunks[:50]:
            start = time.process_time()
            self.bytes += len(pickle.dumps(chunk, pickle.HIGHEST_PROTOCOL))
            self.pickling += time.process_time() - start
            self.sizes.append(len(chunk.prompts))

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Driver:
    """What one core of the driver does: microseconds a prompt, bytes a prompt."""

    serial_us: float
    beside_us: float
    pickle_us: float
    chunk_bytes: float
    memory_bytes: float
    put_us: float
    get_us: float
    prediction_us: float
    image_us: float
    rows: int

    @property
    def most(self) -> float:
        """Prompts a second that it can feed and keep while workers compute."""
        return 1e6 / (self.beside_us + self.pickle_us)


def measure(questions: int, rows: int) -> Driver:
    """Measure this machine's driver on so many searched questions, and its cache at so many rows."""
    images = [Image(f"COCO_train2014_{i:012d}", None, f"caption {i}") for i in range(BANK // 3)]
    bank = {
        str(i): Demonstration(str(i), f"What is in picture number {i}?", images[i % len(images)], f"answer {i % 500}")
        for i in range(BANK)
    }
    asked = [
        Question(f"q{i}", f"What color is thing {i}?", Image(f"COCO_val2014_{i:012d}", None, f"v{i}"), ("red",) * 10)
        for i in range(questions)
    ]
    chance = random.Random(0)
    pools = {q.id: chance.sample(list(bank), POOL) for q in asked}
    workers = AtOnce()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = ResponseCache(folder / "responses.sqlite")
        model = CachedModel(_none, lambda: "model", cache, executor=workers)
        before, peak = time.process_time(), _peak()
        with model.meter.record(folder / "asked.bin", folder / "computed.bin"):
            beam_search(Scorer(model, bank, PromptSettings(), Decoding()), asked, pools, BEAMS)
        whole, prompts = time.process_time() - before - workers.pickling, model.meter.calls
        beside = sum(end - began for began, end in workers.spans)
        memory = (_peak() - peak) / max(beam_search_cost(POOL, BEAMS)[2] * questions, 1)
        model.close()
        put, get = _cache(folder / "large.sqlite", rows)
        prediction, image = _registry(folder), _image(folder / "photo")
    sent = sum(workers.sizes)
    return Driver(
        1e6 * (whole - beside) / prompts, 1e6 * beside / prompts, 1e6 * workers.pickling / sent, workers.bytes / sent,
        memory, put, get, prediction, image, rows,
    )  # fmt: skip


def _none() -> object:
    raise AssertionError


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _cache(file: Path, rows: int) -> tuple[float, float]:
    """Microseconds of a put and a get, of a search's last level, in a cache that holds so many rows."""

    def level(count: int) -> list[tuple[bytes, str]]:
        starts = [os.urandom(6) for _ in range(count // (POOL - 1) + 1)]
        return [(starts[i // (POOL - 1)] + os.urandom(26), "[-3.7281942367553711, 3]") for i in range(count)]

    cache = ResponseCache(file)
    cache.put(sorted(level(rows)))
    chunks = [level(chunk_sizes.LARGEST) for _ in range(100)]
    start = time.process_time()
    for chunk in chunks:
        cache.put(chunk)
    put = time.process_time() - start
    start = time.process_time()
    cache.get([key for chunk in chunks for key, _ in chunk])
    get = time.process_time() - start
    cache.close()
    return 1e6 * put / 100 / chunk_sizes.LARGEST, 1e6 * get / 100 / chunk_sizes.LARGEST


def _registry(folder: Path, count: int = 20_000) -> float:
    """Microseconds of an evaluation answer's row."""
    made = [Prediction("rce", 2, str(i), str(i), ("1", "2"), "red.", "red", 1.0, False) for i in range(count)]
    with Registry(f"sqlite:///{folder / 'registry.db'}") as registry:
        registry.begin_run(RunRecord("run", "run", "f", "vqav2", "model", 0, {}, dataset_fingerprint="world"))
        start = time.process_time()
        registry.record_cell_predictions("run", "rce", 2, list(enumerate(made)), [count])
        return 1e6 * (time.process_time() - start) / count


def _image(file: Path, count: int = 300) -> float:
    """Microseconds of hashing a photo of 160 kB, as COCO's are."""
    file.write_bytes(os.urandom(160_000))
    start = time.process_time()
    for _ in range(count):
        with file.open("rb") as f:
            hashlib.file_digest(f, "sha256").hexdigest()
    return 1e6 * (time.process_time() - start) / count


@dataclass(frozen=True)
class Spent:
    """Hours of a run: `workers` of the GPUs computing, `tail` waiting for the last chunk of a call, `driver` serial."""

    workers: float
    tail: float
    driver: float

    @property
    def hours(self) -> float:
        return self.workers + self.tail + self.driver


def simulate(planned: Plan, driver: Driver, gpus: int) -> Spent:
    """The hours of a run that finds nothing in the cache."""
    workers = tail = serial = 0.0
    for stage in planned.stages:
        if not stage.prompts:
            continue
        computing = stage.hours(GPU) / gpus
        keeping = stage.prompts * (driver.beside_us + driver.pickle_us) / 3.6e9
        workers += max(computing, keeping)
        serial += (stage.prompts * driver.serial_us + stage.images * driver.image_us) / 3.6e9
        calls = _calls(stage, planned)
        chunk = min(max(stage.prompts / calls / chunk_sizes.SHARES, chunk_sizes.SMALLEST), chunk_sizes.LARGEST)
        # A worker waits for the last one for half a chunk on average; one alone waits for none.
        tail += (gpus > 1) * calls * 0.5 * chunk * stage.hours(GPU) / stage.prompts
    return Spent(workers, tail, serial)


def _calls(stage: StagePlan, planned: Plan) -> int:
    """How often the driver waits until all prompts of a call are there."""
    sets, shots = planned.planning.sets, planned.planning.recipe.scoring.beam_search.shots
    if stage.stage == "beam_search":
        of_block = len(next(iter(in_blocks(range(10**6), planned.planning.pool, BEAMS))))  # type: ignore[arg-type]
        return math.ceil(sets.searched / of_block) * (shots + 1)
    if stage.stage == "evaluate":
        return max(planned.prediction_rows // max(sets.evaluated, 1), 1)
    return 3 * math.ceil(sets.proposed / propose.BLOCK)


def page(driver: Driver, price: float) -> str:
    """The tables, as Markdown."""
    feed, keep = 1e6 / driver.serial_us, driver.most
    lines = [
        f"Written by `python tools/simulate_scale.py --output docs/scale.md`, at ${price:.2f} a GPU hour (`--price`).",
        f"A GPU scores {GPU.prompts_per_s:.0f} prompts of two demonstrations a second and answers "
        f"{GPU.answers_per_s:.0f} ({GPU.source}). Training, features by CLIP and the start of workers are not in the "
        "hours.",
        "",
        "| run | prompts | GPUs | hours | computing | waiting for the last | driver alone | GPUs busy | price |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for title, (name, overrides) in RUNS.items():
        with tempfile.TemporaryDirectory() as work:
            planned = plan(RunContext(Recipe.load(name, overrides), Catalog.load(disabled=""), Path(work)))
        for gpus in GPUS:
            spent = simulate(planned, driver, gpus)
            hours = " | ".join(map(_hours, (spent.hours, spent.workers, spent.tail, spent.driver)))
            busy = spent.workers / spent.hours
            cost = gpus * spent.hours * price
            lines.append(f"| {title} | {planned.prompts:,} | {gpus} | {hours} | {busy:.0%} | ${cost:,.0f} |")
    lines += [
        "",
        "| the driver, on one core of this machine | microseconds | a second |",
        "|---|---:|---:|",
        *(
            f"| {what} | {us:.2f} | {1e6 / us:,.0f} |"
            for what, us in (
                ("a prompt between calls: built, hashed, looked up, sorted, cut; results ranked", driver.serial_us),
                ("a prompt while workers compute: its result written as JSON, noted and put", driver.beside_us),
                ("a prompt of a chunk pickled", driver.pickle_us),
                (f"a row put into a cache of {driver.rows:,}", driver.put_us),
                ("a key looked up in it", driver.get_us),
                ("an answer written into the registry (SQLite)", driver.prediction_us),
                ("a photo of 160 kB hashed, once", driver.image_us),
            )
        ),
        "",
        f"A chunk has {driver.chunk_bytes:,.0f} bytes a prompt. A prompt of the level under way takes "
        f"{driver.memory_bytes:,.0f} bytes of the driver's memory: at most {driver.memory_bytes * 2**20 / 1e9:.1f} GB "
        "however many questions are searched.",
        "",
        f"- **The driver alone** takes a tenth of a search's hours at {feed / 9 / GPU.prompts_per_s:,.0f} such GPUs, "
        f"and half of them at {feed / GPU.prompts_per_s:,.0f}.",
        f"- **Keeping results** holds workers up from {keep / GPU.prompts_per_s:,.0f} GPUs on "
        f"({keep:,.0f} prompts/s; 64 GPUs give {64 * GPU.prompts_per_s:,.0f}).",
        f"- **The cache** by itself takes {1e6 / driver.put_us / GPU.prompts_per_s:,.0f} GPUs' results.",
    ]
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours:,.1f}" if hours >= 10 else f"{hours:.2f}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--price", type=float, default=2.5, help="dollars of a GPU hour (2.50)")
    options.add_argument("--questions", type=int, default=600, help="searched to measure the driver (600)")
    options.add_argument("--rows", type=int, default=2_000_000, help="of the cache that is measured (2,000,000)")
    options.add_argument("--output", type=Path, help="a page with the two marks; else it is printed")
    given = options.parse_args()
    text = page(measure(given.questions, given.rows), given.price)
    if given.output is None:
        print(text)
        return
    before, _, rest = given.output.read_text().partition(BEGIN)
    given.output.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
