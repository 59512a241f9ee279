"""`leverplus bench`: what it times, and the mistakes it reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leverplus_core import CheckpointError, DataError
from leverplus_models.bench import bench


def test_it_times_the_search_and_the_generation_of_each_variant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"dataset.cache={tmp_path}", "dataset.train=40", "dataset.validation=4"]
    settings += ["scoring.beam_search={num_beams: 2, shots: 2}", "decoding.num_beams=1"]
    bench("demo", settings, ["model.engine.kernels=false"], questions=2, pool=4, rounds=1, device="cpu", json=True)
    rows = json.loads(capsys.readouterr().out)
    assert [(row["variant"], row["work"]) for row in rows] == [
        (variant, work) for variant in ("demo", "model.engine.kernels=false") for work in ("search", "generation")
    ]
    assert all(row["device"] == "cpu" for row in rows)
    # Each question: bare, 4 with one demonstration, 2 kept x 3 others; then the 2 kept sequences of both levels.
    assert [row["prompts"] for row in rows] == [2 * (1 + 4 + 6), 2 * (2 + 2)] * 2
    assert all(row["prompts_per_s"] > 0 and row["cpu_s"] > 0 for row in rows)


def test_a_pool_that_the_dataset_cannot_fill_is_one_line(tmp_path: Path) -> None:
    settings = [f"dataset.cache={tmp_path}", "dataset.train=20", "dataset.validation=4"]
    with pytest.raises(DataError, match="Set --pool lower"):
        bench("demo", settings, questions=1, pool=30)


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    settings = [f"dataset.cache={tmp_path}", "dataset.train=20", "dataset.validation=4"]
    with pytest.raises(CheckpointError, match="no device 'cuda:99' on this machine"):
        bench("demo", settings, questions=1, pool=4, device="cuda:99")
