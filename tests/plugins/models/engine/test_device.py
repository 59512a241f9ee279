"""Budgets from the free memory of a device, faked here; and one device that is there, for those who have it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from leverplus_core import Decoding
from leverplus_models.engine import device as module
from leverplus_models.engine.device import image_cache_bytes, out_of_memory, to_device, token_budget
from leverplus_models.engine.engine import Engine
from leverplus_models.engine.rows import Row
from leverplus_models.engine.settings import EngineSettings

GB = 2**30


def _model(device: str) -> Any:
    """Two layers of two key heads of 16 in bfloat16: keys and values of a token take 2 x 2 x 2 x 16 x 2 = 256 bytes.

    A row takes (3 x 100 + 8 x 64) x 2 + 3 x 256 = 2392.
    """
    config = LlamaConfig(
        hidden_size=64, intermediate_size=100, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    return SimpleNamespace(config=config, device=torch.device(device), dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("free", "tokens"),
    [
        (4 * 2392 * 1000, 512),  # a quarter is 1,000 rows; the largest power of two in it
        (4 * 2392 * 1024, 1024),
        (80 * GB, 32768),  # no more than fills the largest chip
        (1000, 256),  # no fewer than make a pass worth its start
    ],
)
def test_tokens_of_a_pass_follow_from_what_is_free(free: int, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: free)
    assert token_budget(_model("cuda"), EngineSettings()) == tokens


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_budgets_that_are_set_hold_whatever_is_free(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: 80 * GB)
    assert token_budget(_model(device), EngineSettings(tokens_per_batch=70)) == 70
    assert token_budget(_model(device), EngineSettings(tokens_per_batch=70_000, kv_cache_mb=1)) == 4096  # 1 MB / 256
    assert image_cache_bytes(torch.device(device), EngineSettings(image_cache_mb=3)) == 3 * 2**20


def test_a_cpu_has_budgets_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: pytest.fail("asked for free memory"))
    assert token_budget(_model("cpu"), EngineSettings()) == 2048
    assert image_cache_bytes(torch.device("cpu"), EngineSettings()) == GB


def test_encoded_images_may_take_an_eighth_of_what_is_free_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: 16 * GB)
    assert image_cache_bytes(torch.device("cuda"), EngineSettings()) == 2 * GB


@pytest.mark.parametrize(
    ("error", "out"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("shapes cannot be multiplied"), False),
    ],
)
def test_errors_that_say_that_memory_ran_out(error: Exception, out: bool) -> None:
    assert out_of_memory(error) is out


def _llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=64, intermediate_size=100, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2, pad_token_id=0,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config).eval()
    model.config._attn_implementation = "sdpa"
    return model


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_a_gpu_finds_what_a_cpu_does(dtype: torch.dtype, bound: float) -> None:
    """float32 runs with masks and fused layers; bfloat16 packed, with the kernel of FlashAttention."""
    head, tails = list(range(2, 22)), ([30], [30, 31], list(range(40)))
    rows = [Row(np.array([*head, *tail]), np.arange(20 + len(tail))[None]) for tail in tails]
    answers = [[5], [6, 7, 8], [9, 10]]
    here = Engine(_llama(), [1], 0, EngineSettings())
    there = Engine(_llama().to("cuda", dtype), [1], 0, EngineSettings())
    expected, found = here.logprob(rows, answers), there.logprob(rows, answers)
    assert [each.sum for each in found] == pytest.approx([each.sum for each in expected], abs=bound)
    if dtype == torch.float32:
        for beams in (1, 3):
            decoding = Decoding(max_new_tokens=4, num_beams=beams)
            assert there.generate(rows, decoding) == here.generate(rows, decoding)


@pytest.mark.gpu
def test_a_copy_to_a_gpu_is_equal() -> None:
    array = np.arange(12).reshape(3, 4)[:, ::2]
    assert to_device(array, torch.device("cuda")).cpu().tolist() == array.tolist()
