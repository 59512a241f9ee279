"""Decoding on the tree: token for token what transformers' `generate` finds for each prompt alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from leverplus_core import Decoding
from leverplus_models.engine.beams import Beams, Greedy
from leverplus_models.engine.engine import Engine
from leverplus_models.engine.rows import Row
from leverplus_models.engine.settings import EngineSettings


@pytest.fixture(scope="module")
def model() -> Any:
    """A vocabulary of 20, so that end tokens are often among the likeliest."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=20, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.3, pad_token_id=0,
    )  # fmt: skip
    made: Any = LlamaForCausalLM(config).eval()
    made.config._attn_implementation = "sdpa"
    return made


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Four prompts, one of which continues another."""
    draw = np.random.default_rng(0)
    made = [draw.integers(2, 20, n) for n in (5, 9, 3)]
    made.append(np.concatenate([made[0], draw.integers(2, 20, 4)]))
    return [Row(ids, np.arange(len(ids))[None]) for ids in made]


@pytest.mark.parametrize("eos", [[1], [1, 3, 7]], ids=["one end", "three ends"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -1.0, 2.0])
@pytest.mark.parametrize("num_beams", [1, 2, 3, 4])
def test_the_tokens_are_those_of_generate(
    model: Any, rows: list[Row], num_beams: int, length_penalty: float, eos: list[int]
) -> None:
    for most in (1, 3, 8):
        engine = Engine(model, eos, 0, EngineSettings(tokens_per_batch=200))
        how = {"max_new_tokens": most, "num_beams": num_beams}
        found = engine.generate(rows, Decoding(**how, length_penalty=length_penalty))
        if num_beams > 1:  # without beams transformers warns about a length penalty
            how["length_penalty"] = length_penalty
        for row, new in zip(rows, found, strict=True):
            ids = torch.from_numpy(row.ids)[None]
            marks = {"eos_token_id": eos, "pad_token_id": 0}
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **how, **marks)
            assert _until_end(new, eos) == _until_end(whole[0, len(row.ids) :].tolist(), eos)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("eos", [[1], [1, 3, 7]], ids=["one end", "three ends"])
def test_prompts_of_several_batches_are_decoded_together_on_a_device(
    model: Any, num_beams: int, eos: list[int]
) -> None:
    """Forty prompts in some ten batches: the same tokens from fewer passes, also when memory runs out on the way."""
    draw = np.random.default_rng(3)
    head = draw.integers(2, 20, 12)
    texts = [np.concatenate([head[: 3 * (n % 5)], draw.integers(2, 20, 9)]) for n in range(40)]
    rows, decoding = [Row(ids, np.arange(len(ids))[None]) for ids in texts], Decoding(4, num_beams, 1.0)
    honest, passes = type(model).forward, []

    def generated(ahead: bool, fails: int | None = None) -> tuple[Engine, list[list[int]], int]:
        def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
            passes.append(1)
            if len(passes) == fails:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return honest(self, *args, **kwargs)

        passes.clear()
        engine = Engine(model, eos, 0, EngineSettings(tokens_per_batch=40))
        engine.ahead = ahead
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(model), "forward", counted)
            found = engine.generate(rows, decoding)
        return engine, [_until_end(text, eos) for text in found], len(passes)

    _, expected, apart = generated(ahead=False)
    _, found, together = generated(ahead=True)
    assert found == expected
    prefills = (apart + 3) // 4  # a batch and at most three steps
    assert together <= prefills + 3 * -(-prefills // 4) + 3 < apart
    for fails in range(1, together, 3):
        engine, found, _ = generated(ahead=True, fails=fails)
        assert found == expected and engine.budget == 20


def test_answers_after_nested_demonstrations_compute_what_they_share_once(model: Any) -> None:
    """Two questions after the same one, two and three demonstrations, and the tokens of their trie, by hand."""
    shown, asked = [list(range(2, 12)), list(range(12, 20)), [5] * 9], [[3] * 7, [4] * 7]
    prompts = [[t for part in shown[:k] for t in part] + question for k in (1, 2, 3) for question in asked]
    computed: list[int] = []
    honest = type(model).forward

    def counted(self: Any, *args: Any, inputs_embeds: Any = None, **kwargs: Any) -> Any:
        computed.append(inputs_embeds.shape[1])
        return honest(self, *args, inputs_embeds=inputs_embeds, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "forward", counted)
        rows = [Row(np.array(ids), np.arange(len(ids))[None]) for ids in prompts]
        Engine(model, [1], 0, EngineSettings()).generate([*rows, rows[0]], Decoding(3, 1))
    assert computed[0] == 10 + 8 + 9 + 6 * 7  # each demonstration once; the questions after each number of them
    assert max(computed[1:]) <= 6 and len(computed) <= 3  # a token of each prompt, twice


def _until_end(ids: list[int], eos: list[int]) -> list[int]:
    ends = [i for i, token in enumerate(ids) if token in eos]
    return ids[: ends[0] + 1] if ends else ids


def _step(*likeliest: tuple[float, int]) -> tuple[Any, Any]:
    return np.array([[p for p, _ in likeliest]], dtype=np.float32), np.array([[token for _, token in likeliest]])


def test_a_length_penalty_decides_between_a_short_and_a_long_text() -> None:
    """By hand: "end" at once has -1; token 5 and then "end" has -0.5 - 0.9 = -1.4, or -0.7 a token."""
    for penalty, text in ((0.0, [1]), (1.0, [5, 1])):
        beams = Beams(2, penalty, 3, [1])
        assert beams.advance(*_step((-0.5, 5), (-1.0, 1), (-3.0, 6), (-4.0, 7))) == [0, 0]
        assert beams.last_tokens == [5, 6] and not beams.done
        logprobs = np.array([[-0.9, -2.5, -3.0, -3.5], [-5.0, -5.1, -5.2, -5.3]], dtype=np.float32)
        assert beams.advance(logprobs, np.array([[1, 8, 9, 2], [8, 9, 2, 4]])) == [0, 0]
        assert beams.text == text


def test_greedy_decoding_ends_at_an_end_token_or_at_the_limit() -> None:
    search = Greedy(2, [1])
    assert search.advance(*_step((-0.1, 4))) == [0] and not search.done
    search.advance(*_step((-0.1, 6)))
    assert search.done and search.text == [4, 6]
    search = Greedy(2, [1])
    search.advance(*_step((-0.1, 1)))
    assert search.done and search.text == [1]
