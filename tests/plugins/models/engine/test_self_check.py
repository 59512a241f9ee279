"""Which models the tree runs, and how far two ways of computing the same may be apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf

from leverplus_core import LeverplusWarning
from leverplus_models.engine.engine import Engine
from leverplus_models.engine.rows import Row
from leverplus_models.engine.self_check import difference, listed, tolerance
from leverplus_models.engine.settings import EngineSettings

SHAPE: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
}  # fmt: skip


def _model(config: Any) -> Any:
    torch.manual_seed(0)
    return tf.AutoModelForCausalLM.from_config(config(**SHAPE), attn_implementation="sdpa").eval()


def _rows(*lengths: int) -> list[Row]:
    draw = np.random.default_rng(0)
    return [Row(draw.integers(2, 40, n), np.arange(n, dtype=np.int64)[None]) for n in lengths]


def test_a_model_is_listed_by_itself_and_by_its_language_part() -> None:
    class Model:
        def __init__(self, config: Any) -> None:
            self.config = config

    vision = tf.CLIPVisionConfig().to_dict()
    llava = {
        part: tf.LlavaConfig(vision_config=vision, text_config=part().to_dict())
        for part in (tf.LlamaConfig, tf.GemmaConfig)
    }
    assert [listed(Model(config)) for config in llava.values()] == [True, False]
    assert listed(Model(tf.Qwen2Config())) and not listed(Model(tf.Gemma3TextConfig()))
    assert not listed(Model(tf.Qwen3VLConfig()))


def test_in_float32_the_largest_difference_counts_and_else_the_probable_tokens() -> None:
    """Of two tokens with 3/4 and 1/4: to 1/2 and 1/2 their log-probabilities move by ln 1.5 and ln 2."""
    expected, found = torch.tensor([3.0, 1.0]).log(), torch.tensor([1.0, 1.0]).log()
    assert difference(expected, found) == pytest.approx(math.log(2))
    half = difference(expected.half(), found.half())
    assert half == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(2), abs=1e-3)
    assert difference(expected, expected + 5) == pytest.approx(0, abs=1e-6)  # logits have no zero
    assert difference(expected, torch.tensor([math.nan, 0.0])) == math.inf
    assert difference(torch.tensor([math.nan, 0.0]), expected) == 0
    assert (tolerance(torch.float32), tolerance(torch.bfloat16)) == (1e-3, 0.1)


def test_the_comparison_takes_the_two_shortest_prompts_once() -> None:
    engine, seen = Engine(_model(tf.LlamaConfig), [1], 0, EngineSettings()), []
    engine.model.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    for _ in range(2):
        engine.verify(_rows(30, 9, 20, 12))
    assert engine.window > 0
    assert seen == [9, 12, 21]  # the model by itself, then the tree, in which nothing is shared


def test_a_tree_that_computes_something_else_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, rows = Engine(_model(tf.LlamaConfig), [1], 0, EngineSettings()), _rows(9, 12)
    honest = engine._tree_logits
    monkeypatch.setattr(engine, "_tree_logits", lambda some: [logits * 1.01 for logits in honest(some)])
    with pytest.warns(
        LeverplusWarning, match=r"does not agree with it: log-probabilities differ by .*, where 0\.001 is"
    ):
        engine.verify(rows)
    assert engine.window == 0


def test_a_model_whose_layers_cannot_be_called_with_a_tree_takes_the_padded_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(_model(tf.LlamaConfig), [1], 0, EngineSettings())

    def refuses(some: Any) -> None:
        raise TypeError("forward() got an unexpected keyword argument 'tree'")

    monkeypatch.setattr(engine, "_tree_logits", refuses)
    with pytest.warns(LeverplusWarning, match="the tree failed .forward.. got an unexpected keyword"):
        engine.verify(_rows(9, 12))
    assert engine.window == 0


@pytest.mark.parametrize("settings", [{"tree": "off"}, {"tree": "auto"}])
def test_nothing_is_compared_where_nothing_is_shared(settings: dict[str, Any]) -> None:
    """Switched off, or with attention that the tree does not replace."""
    model = _model(tf.LlamaConfig)
    if settings["tree"] == "auto":
        model.config._attn_implementation = "eager"
    engine = Engine(model, [1], 0, EngineSettings(**settings))
    engine.verify(_rows(9, 12))
    assert engine.window == 0
