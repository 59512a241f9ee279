"""How much faster several workers are than one process: the demo's search, from an empty response cache.

`python -m tools.bench.executors local:2` prints prompts per second, with the images encoded beforehand as a run's stage
`encode` does. The first questions load the model, or start the workers, and are not timed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.run import run
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.records import AnswerLogprob

UNTIMED = 40
"""Questions that are asked before the clock starts: enough for every worker to have loaded the model."""


def main() -> None:
    """Time this process, then the executors that are named, on the same prompts with one thread each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("executors", nargs="+", help="such as local:2")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--pool", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    alone: list[AnswerLogprob] = []
    base = 0.0
    for name in ("local", *options.executors):
        found, rate = _timed(name, options.questions, options.pool)
        alone, base = alone or found, base or rate
        apart = max(abs(ours.sum - theirs.sum) for ours, theirs in zip(alone, found, strict=True))
        print(f"{name:10} {rate:8.1f} prompts/s  {rate / base:5.2f} x  largest difference {apart:.1e}", flush=True)


def _timed(executor: str, questions: int, pool: int) -> tuple[list[AnswerLogprob], float]:
    """The log-probabilities, and prompts per second."""
    with TemporaryDirectory() as folder:
        recipe, work = Recipe.load("demo", ["threads=1", f"execution={executor}"]), Path(folder)
        run(recipe, f"sqlite:///{folder}/registry.db", work, until="encode")
        context = RunContext(recipe, Catalog.load(), work)
        asked = context.dataset.questions("validation")[: questions + UNTIMED]
        bank = context.dataset.demonstrations()
        rows = [(q, (bank[(7 * i + 13 * k) % len(bank)].id,)) for i, q in enumerate(asked) for k in range(pool)]
        allowed = [(q, ids) for q, ids in rows if context.scorer.demonstrations[ids[0]].image.id != q.image.id]
        first = {q.id for q in asked[:UNTIMED]}
        context.scorer.logprobs([row for row in allowed if row[0].id in first])
        timed = [row for row in allowed if row[0].id not in first]
        began = time.perf_counter()
        found = context.scorer.logprobs(timed)
        seconds = time.perf_counter() - began
        context.close()
        return found, len(timed) / seconds


if __name__ == "__main__":
    main()
