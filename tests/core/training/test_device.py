"""Where selectors learn: by the user's word, else on a GPU where pools are large and the features fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from leverplus_core.errors import CheckpointError
from leverplus_core.plugins.contracts import Features
from leverplus_core.selector.feature_set import FeatureSet
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.training.device import gains, training_device

CPU = torch.device("cpu")


def features(pool: int, width: int) -> SelectorFeatures:
    """Of two questions and 100 demonstrations: `width` columns for image, text and answer each."""
    bank, asked = np.zeros((100, width), np.float32), np.zeros((2, width), np.float32)
    ids = [f"d{i}" for i in range(100)]
    found = FeatureSet(ids, Features(bank, bank, bank), ["q0", "q1"], Features(asked, asked))
    return SelectorFeatures.of(found, {"q0": ids[:pool], "q1": ids[:pool]})


def test_a_gpu_gains_from_large_pools_whose_features_fit_into_half_of_its_memory() -> None:
    much = 1 << 30
    assert not gains(features(32, 128), much)  # 32 x 384 = 12,288 numbers
    assert gains(features(64, 128), much)  # 24,576
    taken = 4 * (2 * 256 + 100 * 384) + 8 * 2 * 64
    assert gains(features(64, 128), 2 * taken) and not gains(features(64, 128), 2 * taken - 1)


def test_the_cpu_is_taken_where_the_user_or_the_model_says_so() -> None:
    assert training_device("cpu", "cuda:1", features(64, 512)) == CPU
    assert training_device("auto", "cpu", features(64, 512)) == CPU


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_one_line() -> None:
    assert training_device("auto", "auto", features(64, 512)) == CPU
    with pytest.raises(CheckpointError, match="no device 'cuda' on this machine"):
        training_device("cuda", "auto", features(64, 512))


@pytest.mark.gpu
def test_auto_is_the_models_gpu_for_large_pools() -> None:
    assert training_device("auto", "auto", features(64, 512)).type == "cuda"
    assert training_device("auto", "cuda:0", features(64, 512)) == torch.device("cuda:0")
    assert training_device("auto", "auto", features(8, 16)) == CPU


def test_moved_features_are_gathered_where_they_are() -> None:
    moved = features(8, 4).to(torch.device("meta"))
    batch = moved.batch(["q1", "q0"])
    held = [batch.question.rows, batch.candidates.rows, batch.similarity]
    assert [rows.device.type for rows in held] == ["meta"] * 3
    assert [tuple(rows.shape) for rows in held] == [(2, 8), (2, 8, 12), (2, 8, 2)]
