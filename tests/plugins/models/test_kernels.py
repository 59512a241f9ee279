"""The faster layers: equal in float32, within rounding in bfloat16, and gone when they are given back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from leverplus_models import kernels
from leverplus_models.batching import Row
from leverplus_models.engine import Engine, EngineSettings
from leverplus_models.kernels import Kernels


def _model(dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, attention_bias=True, mlp_bias=True, initializer_range=0.2, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for name, weight in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            nn.init.normal_(weight, 1.0, 0.3)
    return model.to(dtype)


IDS = torch.arange(2, 42)[None]
ROWS = [Row(np.array([*range(2, 22), *tail]), np.arange(20 + len(tail))[None]) for tail in ([30], [30, 31], range(40))]
ANSWERS = [[5], [6, 7, 8], [9, 10]]


def _scores(model: Any) -> torch.Tensor:
    return torch.tensor([found.sum for found in Engine(model, [1], 0, EngineSettings()).logprob(ROWS, ANSWERS)])


def _own(model: Any) -> torch.Tensor:
    found = []
    for row, answer in zip(ROWS, ANSWERS, strict=True):
        logprobs = model(torch.tensor([[*row.ids, *answer]])).logits[0].float().log_softmax(-1)
        found.append(sum(logprobs[len(row.ids) - 1 + n, token] for n, token in enumerate(answer)))
    return torch.stack(found)


@torch.inference_mode()
def test_float32_is_the_model_s_own() -> None:
    model = _model(torch.float32)
    assert torch.allclose(_scores(model), _own(model), atol=1e-4)
    with Kernels(model).lent():  # without a tree: the padded path
        assert torch.allclose(model(IDS).logits, _model(torch.float32)(IDS).logits, atol=1e-4)


@torch.inference_mode()
def test_bfloat16_is_as_near_to_float32_as_the_model_s_own() -> None:
    exact = _own(_model(torch.float32).to(torch.bfloat16).float())
    model = _model(torch.bfloat16)
    assert (_scores(model) - exact).abs().mean() <= 1.2 * (_own(model) - exact).abs().mean()


@torch.inference_mode()
def test_rows_taken_some_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(torch.float32)
    expected = _scores(model)
    monkeypatch.setattr(kernels, "FEWEST", 7)
    monkeypatch.setattr(kernels, "INNER", 1)
    monkeypatch.setattr(kernels, "WIDE", 1)
    assert torch.allclose(_scores(model), expected, atol=1e-5)


def _tower(dtype: torch.dtype) -> Any:
    """Qwen2.5-VL with a tower of three windowed blocks and one that sees the whole picture."""
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": 50,
        },
        vision_config={
            "hidden_size": 64, "intermediate_size": 96, "depth": 4, "num_heads": 2, "out_hidden_size": 64,
            "fullatt_block_indexes": [3],
        },
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval().to(dtype)


GRIDS = torch.tensor([(1, 10, 14), (1, 10, 14), (1, 4, 6), (1, 8, 8)])
"""Windows are of 8 x 8 patches: cut at the right, at the bottom, at both, and whole."""


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.06)])
@pytest.mark.parametrize("cache", [None, 1], ids=["at once", "some rows at a time"])
def test_the_vision_tower_is_the_model_s_own(
    dtype: torch.dtype, tolerance: float, cache: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cache:
        monkeypatch.setattr(kernels, "INNER", cache)
        monkeypatch.setattr(kernels, "WIDE", cache)
    model = _tower(dtype)
    pixels = torch.randn(int(GRIDS.prod(1).sum()), 1176, generator=torch.Generator().manual_seed(1)).to(dtype)

    def features() -> torch.Tensor:
        return torch.cat(list(model.get_image_features(pixels, GRIDS).pooler_output)).float()

    expected = features()
    with Kernels(model).lent():
        assert "forward" in vars(model.model.visual.blocks[0])
        found = features()
    assert torch.allclose(found, expected, atol=tolerance * expected.abs().max())


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_is_untouched_after_it(dtype: torch.dtype) -> None:
    model = _model(dtype)
    before = model(IDS).logits
    faster = Kernels(model)
    with pytest.raises(RuntimeError, match="lost"), faster.lent():
        assert any("forward" in vars(m) for m in model.modules())
        raise RuntimeError("lost")
    assert not any("forward" in vars(m) for m in model.modules())
    assert torch.equal(model(IDS).logits, before)


def test_no_second_copy_of_the_weights_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_free_memory", lambda: 1000)
    model = _model(torch.bfloat16)
    monkeypatch.setattr(kernels, "_packed", lambda weight: pytest.fail("a copy was made"))
    with Kernels(model).lent():
        lent = {type(m).__name__ for m in model.modules() if "forward" in vars(m)}
    assert lent == {"LlamaRMSNorm", "LlamaDecoderLayer"}
