"""The arithmetic of the simulation, by hand; the measurements on a small driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from leverplus_core.pipeline.context import RunContext
from leverplus_core.pipeline.plan import plan
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from tools.simulate_scale import Driver, measure, page, simulate

DRIVER = Driver(
    serial_us=20, beside_us=5, pickle_us=5, chunk_bytes=174, memory_bytes=1000, put_us=2.5, get_us=1.6,
    prediction_us=30, image_us=100, rows=10,
)  # fmt: skip


def test_hours_are_those_of_computing_of_waiting_and_of_the_driver(tmp_path: Path) -> None:
    """A search alone: 800 questions, pools of 64, 5 beams, 2 shots."""
    recipe = Recipe.load("okvqa-qwen2.5-vl-3b", ["training.rce.epochs=0", "training.mrt.epochs=0"])
    planned = plan(RunContext(recipe, Catalog.load(disabled=""), tmp_path))
    [search] = [stage for stage in planned.stages if stage.stage == "beam_search"]
    assert search.logprobs == {0: 800, 1: 51_200, 2: 252_000} and not search.answers
    alone = type(planned)(planned.planning, (search,), {}, 0)
    # Prompts of two demonstrations at 102/s; one with fewer images takes a third or two.
    computing = (800 / 3 + 51_200 * 2 / 3 + 252_000) / 102 / 3600
    one, eight = (simulate(alone, DRIVER, gpus) for gpus in (1, 8))
    assert (one.workers, one.tail) == (pytest.approx(computing), 0)
    assert eight.workers == pytest.approx(computing / 8)
    assert one.driver == eight.driver == pytest.approx((304_000 * 20 + search.images * 100) / 3.6e9)
    # Three calls of 101,333 prompts in chunks of 791; at the end of each a worker waits for half a chunk.
    assert eight.tail == pytest.approx(3 * 0.5 * 304_000 / 3 / 128 * computing / 304_000)
    # With so many GPUs that they are faster than 100,000 prompts/s, keeping the results takes longest.
    assert simulate(alone, DRIVER, 10_000).workers == pytest.approx(304_000 * 10 / 3.6e9)


def test_the_driver_is_measured_and_all_tables_are_written() -> None:
    driver = measure(questions=3, rows=200)
    assert min(driver.serial_us, driver.beside_us, driver.pickle_us, driver.put_us, driver.prediction_us) > 0
    text = page(driver, price=2.0)
    assert text.count("| VQAv2, all 443,757 | 227,521,508 |") == 3
    assert DRIVER.most == 100_000
