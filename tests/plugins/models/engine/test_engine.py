"""The scoring engine piece by piece: whatever is switched off, and however small the budgets, results are equal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from leverplus_core import DataError, Decoding
from leverplus_models.engine.engine import Engine
from leverplus_models.engine.rows import Row
from leverplus_models.engine.settings import EngineSettings, switches
from leverplus_models.engine.tree_attention import Padding
from leverplus_models.engine.tree_walk import TreeWalk

GREEDY, BEAM = Decoding(max_new_tokens=4, num_beams=1), Decoding(max_new_tokens=4, num_beams=3)


def _model(cls: Any = LlamaForCausalLM, config: Any = LlamaConfig, **settings: Any) -> Any:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3,
    }  # fmt: skip
    model = cls(config(**shape, pad_token_id=0, eos_token_id=1, bos_token_id=None, **settings)).eval()
    model.config._attn_implementation = "sdpa"
    return model


@pytest.fixture(scope="module")
def model() -> Any:
    return _model()


def _row(ids: Sequence[int]) -> Row:
    return Row(np.array(ids, dtype=np.int64), np.arange(len(ids), dtype=np.int64)[None])


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Shared prefixes, equal rows, a row that is the beginning of another, and one longer than a node."""
    draw = np.random.default_rng(0)
    head, tails = draw.integers(2, 40, 20), [draw.integers(2, 40, n) for n in (1, 3, 12, 30)]
    made = [[*head, *a, *b] for a in tails for b in tails]
    made += [list(head), list(head), list(tails[3]), list(draw.integers(2, 40, 700))]
    return [_row(ids) for ids in made]


ANSWERS = ((5,), (6, 7, 8), (9, 10))


def _answers(rows: Sequence[Row]) -> list[tuple[int, ...]]:
    return [ANSWERS[i % 3] for i in range(len(rows))]


def _plain(model: Any, row: Row, answer: Sequence[int]) -> float:
    ids = torch.tensor([[*row.ids.tolist(), *answer]])
    with torch.inference_mode():
        logprobs = model(input_ids=ids).logits[0].log_softmax(-1)
    return sum(float(logprobs[len(row.ids) - 1 + n, token]) for n, token in enumerate(answer))


@pytest.mark.parametrize("off", [None, *switches()])
@pytest.mark.parametrize("budget", [1, 60, 5000])
def test_logprob_is_the_model_s_own(model: Any, rows: list[Row], off: str | None, budget: int) -> None:
    settings = EngineSettings(tokens_per_batch=budget, **({off: False} if off else {}))
    engine = Engine(model, [1], 0, settings)
    assert engine.window == sys.maxsize
    got = engine.logprob(rows, _answers(rows))
    expected = [_plain(model, row, answer) for row, answer in zip(rows, _answers(rows), strict=True)]
    assert [g.sum for g in got] == pytest.approx(expected, abs=1e-4)
    assert [g.tokens for g in got] == [len(a) for a in _answers(rows)]


@pytest.mark.parametrize("off", [None, *switches()])
@pytest.mark.parametrize("decoding", [GREEDY, BEAM], ids=["greedy", "beam"])
def test_generate_is_transformers_own(model: Any, rows: list[Row], off: str | None, decoding: Decoding) -> None:
    engine = Engine(model, [1, 3], 0, EngineSettings(tokens_per_batch=200, **({off: False} if off else {})))
    got = engine.generate(rows, decoding)
    for row, new in zip(rows, got, strict=True):
        ids = torch.from_numpy(row.ids)[None]
        how = {"max_new_tokens": 4, "num_beams": decoding.num_beams, "do_sample": False}
        how |= {"length_penalty": 0.0} if decoding.num_beams > 1 else {}
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, eos_token_id=[1, 3], **how)
        assert _until_end(new) == _until_end(whole[0, ids.shape[1] :].tolist())


@pytest.mark.parametrize("budget", [1, 60, 5000])
def test_rounding_up_rows_and_keys_changes_nothing(model: Any, rows: list[Row], budget: int) -> None:
    """Where products are compiled per number of rows, the model runs on few different numbers."""
    plain, rounding = (Engine(model, [1, 3], 0, EngineSettings(tokens_per_batch=budget)) for _ in range(2))
    rounding.kernels.padding = Padding(rounded=True)
    assert [rounding.kernels.padding.rows(n) for n in (1, 16, 17, 256, 257, 2048)] == [16, 16, 32, 256, 320, 2048]
    assert [rounding.kernels.padding.keys(n) for n in (1, 32, 33, 1277)] == [32, 32, 64, 1280]
    assert (plain.kernels.padding.rows(17), plain.kernels.padding.keys(17)) == (17, 17)
    expected = [found.sum for found in plain.logprob(rows, _answers(rows))]
    assert [found.sum for found in rounding.logprob(rows, _answers(rows))] == pytest.approx(expected, abs=1e-4)
    assert rounding.generate(rows, GREEDY) == plain.generate(rows, GREEDY)
    np.testing.assert_allclose(rounding.last_hidden_state(rows), plain.last_hidden_state(rows), atol=1e-4)


@pytest.mark.parametrize("off", [None, *switches()])
@pytest.mark.parametrize("budget", [1, 60, 5000])
def test_the_last_hidden_state_is_the_input_of_the_output_layer(
    model: Any, rows: list[Row], off: str | None, budget: int
) -> None:
    engine = Engine(model, [1], 0, EngineSettings(tokens_per_batch=budget, **({off: False} if off else {})))
    np.testing.assert_allclose(engine.last_hidden_state(rows), _plain_states(model, rows), atol=1e-4)
    assert engine.last_hidden_state([]).shape == (0, 32)
    assert [g.sum for g in engine.logprob(rows[:1], [(5,)])] == pytest.approx([_plain(model, rows[0], (5,))], abs=1e-4)


def _plain_states(model: Any, rows: Sequence[Row]) -> np.ndarray:
    with torch.inference_mode():
        return np.stack([model.model(torch.from_numpy(row.ids)[None]).last_hidden_state[0, -1].numpy() for row in rows])


def _until_end(ids: Sequence[int]) -> list[int]:
    ends = [i for i, token in enumerate(ids) if token in (1, 3)]
    return list(ids[: ends[0] + 1] if ends else ids)


def test_a_small_memory_for_keys_and_values_changes_nothing(model: Any, rows: list[Row]) -> None:
    small = Engine(model, [1], 0, EngineSettings(kv_cache_mb=1))
    small.budget = 3
    whole = Engine(model, [1], 0, EngineSettings())
    expected = [a.sum for a in whole.logprob(rows, _answers(rows))]
    assert [a.sum for a in small.logprob(rows, _answers(rows))] == pytest.approx(expected, abs=1e-4)
    assert small.generate(rows, GREEDY) == whole.generate(rows, GREEDY)


def test_only_the_path_to_the_next_chunk_is_kept(model: Any, rows: list[Row]) -> None:
    walk = TreeWalk(rows, [1] * len(rows))
    longest = max(len(row.ids) for row in rows)
    with torch.inference_mode():
        while not walk.done:
            chunk = walk.chunk(50, 1000)
            _, cache, _ = walk.run(model, chunk, {}, "needed")
            walk.advance(chunk, cache)
            assert walk.cache.size <= longest
            assert all(len(both) == walk.cache.size for both in walk.cache.layers.values())


def test_memory_that_runs_out_halves_the_batch(model: Any, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Engine(model, [1], 0, EngineSettings()).logprob(rows, _answers(rows))
    texts = {d: Engine(model, [1], 0, EngineSettings()).generate(rows, d) for d in (GREEDY, BEAM)}
    honest = type(model).forward

    def poor(self: Any, *args: Any, inputs_embeds: torch.Tensor | None = None, **kwargs: Any) -> Any:
        if inputs_embeds is not None and inputs_embeds.shape[0] * inputs_embeds.shape[1] > 800:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return honest(self, *args, inputs_embeds=inputs_embeds, **kwargs)

    monkeypatch.setattr(type(model), "forward", poor)
    engine = Engine(model, [1], 0, EngineSettings(tokens_per_batch=5000))
    got = engine.logprob(rows, _answers(rows))
    assert [g.sum for g in got] == pytest.approx([e.sum for e in expected], abs=1e-4)
    assert engine.budget < 5000
    engine.budget = 5000
    assert engine.generate(rows, GREEDY) == texts[GREEDY]
    engine.budget = 3000
    assert [_until_end(t) for t in engine.generate(rows[:-1], BEAM)] == [_until_end(t) for t in texts[BEAM][:-1]]


def test_memory_that_runs_out_once_is_remembered(model: Any, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Engine(model, [1], 0, EngineSettings())
    expected = [found.sum for found in plain.logprob(rows, _answers(rows))]
    honest, failed = type(model).forward, []

    def once(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return honest(self, *args, **kwargs)

    engine = Engine(model, [1], 0, EngineSettings(tokens_per_batch=2000))
    monkeypatch.setattr(type(model), "forward", once)
    assert [found.sum for found in engine.logprob(rows, _answers(rows))] == pytest.approx(expected, abs=1e-4)
    assert failed and engine.budget == 1000
    assert [found.sum for found in engine.logprob(rows, _answers(rows))] == pytest.approx(expected, abs=1e-4)
    assert engine.budget == 1000
    failed.clear()
    np.testing.assert_allclose(engine.last_hidden_state(rows), plain.last_hidden_state(rows), atol=1e-4)
    assert engine.budget == 500


def test_a_prompt_that_never_fits_is_one_line(model: Any, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    def poor(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(type(model), "forward", poor)
    for call in (lambda e: e.logprob(rows, _answers(rows)), lambda e: e.generate(rows, GREEDY)):
        with pytest.raises(DataError, match=r"a prompt does not fit in the memory of cpu: CUDA out of memory\. Tried"):
            call(Engine(model, [1], 0, EngineSettings()))


def test_an_error_that_is_not_about_memory_is_raised(model: Any, rows: list[Row]) -> None:
    def lost(keys: Sequence[str], upcoming: Sequence[str]) -> dict[str, torch.Tensor]:
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        Engine(model, [1], 0, EngineSettings(), lost).logprob(rows, _answers(rows))


def test_rows_longer_than_a_sliding_window_take_the_padded_path(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows longer than the window cannot share prefixes: they take the padded path, with equal results."""
    model = _model(MistralForCausalLM, MistralConfig, sliding_window=8)
    engine = Engine(model, [1], 0, EngineSettings(tokens_per_batch=300))
    assert engine.window == 8
    walked = _walked(monkeypatch)
    got = engine.logprob(rows, _answers(rows))
    expected = [_plain(model, row, answer) for row, answer in zip(rows, _answers(rows), strict=True)]
    assert [g.sum for g in got] == pytest.approx(expected, abs=1e-4)
    assert [len(text) for text in engine.generate(rows, GREEDY)] == [4] * len(rows)
    np.testing.assert_allclose(engine.last_hidden_state(rows), _plain_states(model, rows), atol=1e-4)
    assert not walked


@pytest.mark.parametrize("decoding", [GREEDY, BEAM])
def test_rows_within_a_sliding_window_share_prefixes(
    rows: list[Row], decoding: Decoding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest row has 700 tokens, and four follow."""
    model, walked = _model(MistralForCausalLM, MistralConfig, sliding_window=704), _walked(monkeypatch)
    engine = Engine(model, [1], 0, EngineSettings(tokens_per_batch=300))
    got = [found.sum for found in engine.logprob(rows, _answers(rows))]
    assert got == pytest.approx([_plain(model, r, a) for r, a in zip(rows, _answers(rows), strict=True)], abs=1e-4)
    np.testing.assert_allclose(engine.last_hidden_state(rows), _plain_states(model, rows), atol=1e-4)
    new = engine.generate(rows, decoding)
    assert len(walked) == 3
    shorter = Engine(_model(MistralForCausalLM, MistralConfig, sliding_window=703), [1], 0, EngineSettings())
    padded = shorter.generate(rows, decoding)
    assert len(walked) == 3
    assert [_until(1, text) for text in new] == [_until(1, text) for text in padded]


def _walked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each tree that is walked from now on."""
    found: list[int] = []
    honest = TreeWalk.__init__

    def counted(self: TreeWalk, rows: Sequence[Row], *more: Any) -> None:
        found.append(len(rows))
        honest(self, rows, *more)

    monkeypatch.setattr(TreeWalk, "__init__", counted)
    return found


def _until(end: int, text: list[int]) -> list[int]:
    """Without what follows the end token."""
    return text[: text.index(end) + 1] if end in text else text


def test_settings_refuse_what_they_do_not_know(tmp_path: Path) -> None:
    assert EngineSettings(image_cache_dir=tmp_path).image_cache_dir == tmp_path
    with pytest.raises(ValueError, match="prefixes"):
        EngineSettings.model_validate({"prefixes": False})
