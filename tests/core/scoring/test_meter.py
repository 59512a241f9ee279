from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from leverplus_core.errors import PluginError
from leverplus_core.plugins.contracts import Floats, Model, SupportsHiddenStates
from leverplus_core.records import AnswerLogprob, Decoding, Prompt, Turn
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.scoring.meter import KEY_BYTES, PromptMeter, count_keys


class Plain(Model):
    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> list[AnswerLogprob]:
        return [AnswerLogprob(-1.0, 1) for _ in prompts]

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        return ["red" for _ in prompts]


class Open(Plain, SupportsHiddenStates):
    def last_hidden_state(self, prompts: Sequence[Prompt]) -> Floats:
        return np.zeros((len(prompts), 2), np.float32)


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt((Turn("user", (text,)),)) for text in texts]


def cached(cache: Path, model: Model | None = None) -> CachedModel:
    used = model or Open()
    return CachedModel(lambda: used, used.identity, ResponseCache(cache))


def asked(file: Path) -> int:
    return count_keys([file]) or 0


def ask(model: CachedModel, file: Path) -> tuple[int, int]:
    """(asked, computed) of two log-probabilities, of which one is asked twice, an answer and a hidden state."""
    before = model.calls
    with model.meter.record(file):
        model.logprob(prompts("a", "b", "a"), ["red"] * 3)
        model.generate(prompts("a"), Decoding())
        model.last_hidden_state(prompts("a"))
    return asked(file), model.calls - before


def test_distinct_prompts_are_counted_by_kind_whether_or_not_the_cache_knows_them(tmp_path: Path) -> None:
    assert ask(cached(tmp_path / "r.sqlite"), tmp_path / "cold") == (4, 4)
    assert ask(cached(tmp_path / "r.sqlite"), tmp_path / "warm") == (4, 1)  # hidden states are not kept
    assert (tmp_path / "cold").read_bytes() == (tmp_path / "warm").read_bytes()


def test_blocks_may_be_nested_and_what_is_asked_outside_is_not_counted(tmp_path: Path) -> None:
    model, outer, inner = cached(tmp_path / "r.sqlite"), tmp_path / "outer", tmp_path / "inner"
    model.generate(prompts("before"), Decoding())
    with model.meter.record(outer):
        model.generate(prompts("a", "b"), Decoding())
        with model.meter.record(inner):
            model.generate(prompts("b", "c"), Decoding())
        model.generate(prompts("c", "d"), Decoding())
    assert (asked(outer), asked(inner), model.calls) == (4, 2, 5)
    assert asked(tmp_path / "never") == 0 and count_keys([tmp_path / "never"]) is None


def test_a_later_attempt_adds_to_the_file_even_where_a_kill_cut_the_last_key(tmp_path: Path) -> None:
    model, file = cached(tmp_path / "r.sqlite"), tmp_path / "asked"
    with model.meter.record(file):
        model.generate(prompts("a", "b"), Decoding())
    file.write_bytes(file.read_bytes() + b"cut")
    with model.meter.record(file):
        model.generate(prompts("b", "c"), Decoding())
    assert asked(file) == 3 and file.stat().st_size == 3 * KEY_BYTES


def test_many_keys_in_any_order_are_counted_once_each_alone_and_together(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 300, 4000)
    first, second = tmp_path / "first", tmp_path / "second"
    meter = PromptMeter()
    for file, rows in ((first, drawn), (second, drawn + 200)):
        with meter.record(file):
            for start in range(0, len(rows), 37):
                meter.asked([b"start" + int(row).to_bytes(8, "big") for row in rows[start : start + 37]])
        assert count_keys([file]) == 300 and file.stat().st_size == 300 * KEY_BYTES
    assert count_keys([first, second]) == 500
    assert count_keys([first, tmp_path / "never"]) is None and count_keys([]) == 0


def test_what_the_model_computes_is_noted_before_it_is_stored_so_that_a_kill_between_counts_it_once(
    tmp_path: Path,
) -> None:
    files = (tmp_path / "asked", tmp_path / "computed")
    model = cached(tmp_path / "r.sqlite")
    with model.meter.record(*files):
        model.generate(prompts("a", "b"), Decoding())
    (tmp_path / "r.sqlite").rename(tmp_path / "lost.sqlite")  # as if killed before the two answers were stored
    again = cached(tmp_path / "r.sqlite")
    with again.meter.record(*files):
        again.generate(prompts("a", "b"), Decoding())
        again.generate(prompts("b", "c"), Decoding())
    assert (again.calls, asked(files[0]), asked(files[1])) == (3, 3, 3)
    warm = cached(tmp_path / "r.sqlite")
    with warm.meter.record(tmp_path / "asked again", tmp_path / "computed again"):
        warm.generate(prompts("a", "b"), Decoding())
    assert (asked(tmp_path / "asked again"), asked(tmp_path / "computed again")) == (2, 0)


def test_a_block_that_fails_counts_what_was_asked_and_no_more(tmp_path: Path) -> None:
    meter = PromptMeter()
    with pytest.raises(ZeroDivisionError), meter.record(tmp_path / "asked"):
        meter.asked([b"start-12345678"])
        raise ZeroDivisionError
    meter.asked([b"start-87654321"])
    assert asked(tmp_path / "asked") == 1


def test_a_model_that_does_not_show_its_hidden_state_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="model Plain does not show its hidden state"):
        cached(tmp_path / "r.sqlite", Plain()).last_hidden_state(prompts("a"))
