"""The faster layers: equal in float32, within rounding in bfloat16, removed after use, and off by a setting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from leverplus_models.engine import kernels
from leverplus_models.engine.engine import Engine
from leverplus_models.engine.kernels import Kernels
from leverplus_models.engine.rows import Row
from leverplus_models.engine.settings import EngineSettings


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


def _scores(model: Any, **settings: bool) -> torch.Tensor:
    engine = Engine(model, [1], 0, EngineSettings(**settings))
    return torch.tensor([found.sum for found in engine.logprob(ROWS, ANSWERS)])


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
    with Kernels(model).patched():  # without a tree: the padded path
        assert torch.allclose(model(IDS).logits, _model(torch.float32)(IDS).logits, atol=1e-4)


@torch.inference_mode()
def test_bfloat16_is_as_close_to_float32_as_the_model_s_own() -> None:
    exact = _own(_model(torch.float32).to(torch.bfloat16).float())
    model = _model(torch.bfloat16)
    assert (_scores(model) - exact).abs().mean() <= 1.2 * (_own(model) - exact).abs().mean()


@torch.inference_mode()
def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model(torch.float32)
    expected = _scores(model)
    monkeypatch.setattr(kernels, "MIN_BLOCK_ROWS", 7)
    monkeypatch.setattr(kernels, "MLP_BLOCK", 1)
    monkeypatch.setattr(kernels, "NORM_BLOCK", 1)
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
@pytest.mark.parametrize("cache", [None, 1], ids=["one block", "blocks"])
def test_the_vision_tower_is_the_model_s_own(
    dtype: torch.dtype, tolerance: float, cache: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cache:
        monkeypatch.setattr(kernels, "MLP_BLOCK", cache)
        monkeypatch.setattr(kernels, "NORM_BLOCK", cache)
    model = _tower(dtype)
    pixels = torch.randn(int(GRIDS.prod(1).sum()), 1176, generator=torch.Generator().manual_seed(1)).to(dtype)

    def features() -> torch.Tensor:
        return torch.cat(list(model.get_image_features(pixels, GRIDS).pooler_output)).float()

    expected = features()
    with Kernels(model).patched():
        assert "forward" in vars(model.model.visual.blocks[0])
        found = features()
    assert torch.allclose(found, expected, atol=tolerance * expected.abs().max())


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_is_untouched_after_it(dtype: torch.dtype) -> None:
    model = _model(dtype)
    before = model(IDS).logits
    faster = Kernels(model)
    with pytest.raises(RuntimeError, match="lost"), faster.patched():
        assert any("forward" in vars(m) for m in model.modules())
        raise RuntimeError("lost")
    assert not any("forward" in vars(m) for m in model.modules())
    assert torch.equal(model(IDS).logits, before)


def test_weights_are_not_copied_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "free_memory", lambda device: 1000)
    model = _model(torch.bfloat16)
    monkeypatch.setattr(kernels, "_packed", lambda weight: pytest.fail("a copy was made"))
    with Kernels(model).patched():
        patched = {type(m).__name__ for m in model.modules() if "forward" in vars(m)}
    assert patched == {"LlamaRMSNorm", "LlamaDecoderLayer"}


@torch.inference_mode()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.5)])
def test_switched_off_the_stock_layers_run(
    dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(dtype)
    with_kernels = _scores(model)
    monkeypatch.setattr(kernels, "_decoder_layer", lambda *_: pytest.fail("a layer was replaced"))
    without = _scores(model, kernels=False)
    assert torch.allclose(without, with_kernels, atol=tolerance)
    assert torch.allclose(without, _own(model), atol=tolerance)
    assert not Kernels(model, enabled=False).last_layer_selects
