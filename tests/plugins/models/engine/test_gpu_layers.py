"""The layers for a GPU and attention without padding, computed on the CPU: equal to the model's own in float32."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from leverplus_core import Decoding
from leverplus_models.engine import engine as engine_module
from leverplus_models.engine import kernels, tree_attention
from leverplus_models.engine.engine import Engine
from leverplus_models.engine.kernels import Kernels
from leverplus_models.engine.packed_attention import packed_attention
from leverplus_models.engine.rows import Row
from leverplus_models.engine.settings import EngineSettings

ROWS = [Row(np.array([*range(2, 22), *tail]), np.arange(20 + len(tail))[None]) for tail in ([30], [30, 31], range(40))]
ANSWERS = [[5], [6, 7, 8], [9, 10]]


@pytest.fixture(params=["packed", "padded"])
def as_on_a_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers and attention as on a GPU, with bfloat16 (packed) or with float32 (padded)."""
    for module in (kernels, tree_attention):
        monkeypatch.setattr(module, "supports_packed", lambda model: request.param == "packed")
    monkeypatch.setattr(kernels, "on_gpu", lambda model: True)


def _llama(bias: bool) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=64, intermediate_size=100, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, attention_bias=bias, mlp_bias=bias, initializer_range=0.2, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for name, weight in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            nn.init.normal_(weight, 1.0, 0.3)
    model.config._attn_implementation = "sdpa"
    return model


@torch.inference_mode()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("budget", [1, 30, 5000])
@pytest.mark.usefixtures("as_on_a_gpu")
def test_results_are_the_model_s_own(bias: bool, budget: int) -> None:
    model = _llama(bias)
    expected = []
    for row, answer in zip(ROWS, ANSWERS, strict=True):
        logprobs = model(torch.tensor([[*row.ids, *answer]])).logits[0].log_softmax(-1)
        expected.append(sum(float(logprobs[len(row.ids) - 1 + n, token]) for n, token in enumerate(answer)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    whole = model.generate(torch.tensor(ROWS[0].ids)[None], max_new_tokens=4, do_sample=False, pad_token_id=0)
    for _ in range(2):  # the second engine finds the weights joined
        engine = Engine(model, [1], 0, EngineSettings(tokens_per_batch=budget))
        assert [found.sum for found in engine.logprob(ROWS, ANSWERS)] == pytest.approx(expected, abs=1e-4)
        new = engine.generate(ROWS[:1], Decoding(max_new_tokens=4, num_beams=1))[0]
        assert new == whole[0, len(ROWS[0].ids) :].tolist()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any("forward" in vars(module) for module in model.modules())


@torch.inference_mode()
@pytest.mark.usefixtures("as_on_a_gpu")
def test_the_tower_is_the_model_s_own() -> None:
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": 50,
        },
        vision_config={
            "hidden_size": 64, "intermediate_size": 100, "depth": 4, "num_heads": 2, "out_hidden_size": 64,
            "fullatt_block_indexes": [3],
        },
    )  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()
    grids = torch.tensor([(1, 10, 14), (1, 10, 14), (1, 4, 6), (1, 8, 8)])  # windows cut at the right and the bottom
    pixels = torch.randn(int(grids.prod(1).sum()), 1176, generator=torch.Generator().manual_seed(1))

    def features() -> torch.Tensor:
        return torch.cat(list(model.get_image_features(pixels, grids).pooler_output))

    expected = features()
    with Kernels(model).patched():
        found = features()
    assert torch.allclose(found, expected, atol=1e-5 * float(expected.abs().max()))
    assert torch.equal(features(), expected)  # its own layers again, on weights that are views


def test_packed_sequences_attend_to_their_own_keys_and_no_later_ones() -> None:
    """Two sequences, by hand: one query sees one key; two queries see the first two and all three of three keys."""
    query = torch.zeros(3, 2, 8)  # equal scores: attention is the mean of the values that are seen
    value = torch.tensor([[5.0], [1.0], [2.0], [6.0]])[:, None].expand(4, 1, 8)
    ends = torch.tensor([0, 1, 3]), torch.tensor([0, 1, 4])
    out = packed_attention(query, torch.zeros(4, 1, 8), value, *ends, (2, 3), True, None)
    assert out[:, :, 0].tolist() == [[5, 5], [1.5, 1.5], [3, 3]]
    out = packed_attention(query, torch.zeros(4, 1, 8), value, *ends, (2, 3), False, None)
    assert out[:, :, 0].tolist() == [[5, 5], [3, 3], [3, 3]]


class _Operators(TorchDispatchMode):
    """Counts the operators that torch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


WAITING = {"item", "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique_dim", "_unique2"}
"""Operators whose result, or its shape, the processor waits for."""


def test_a_pass_starts_as_many_operators_for_many_prompts_as_for_few_and_waits_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attention apart, which on a GPU is one kernel for all sequences and here a loop."""
    for module in (kernels, tree_attention, engine_module):
        monkeypatch.setattr(module, "supports_packed", lambda model: True)
    monkeypatch.setattr(kernels, "on_gpu", lambda model: True)
    monkeypatch.setattr(tree_attention, "packed_attention", lambda query, *more: query)
    engine, counted = Engine(_llama(False), [1], 0, EngineSettings()), []
    for copies in (1, 1, 12):  # the first joins the weights
        rows = [Row(np.array([*row.ids, i]), np.arange(len(row.ids) + 1)[None]) for i in range(copies) for row in ROWS]
        with _Operators() as operators:
            engine.logprob(rows, ANSWERS * copies)
        counted.append(operators.counts)
    assert counted[1]["linear"] > 0 and counted[1] == counted[2]
    assert not WAITING & set(counted[2])
