"""On a device a call begins while the one before it is computed; here the CPU plays the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from leverplus_core import AnswerLogprob, DataError, Image, Prompt, Turn
from leverplus_core.scoring import chunks
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.testing import tiny_pictures
from leverplus_models.engine import engine as module
from leverplus_models.engine.tree_walk import TreeWalk
from leverplus_models.qwen2_5_vl import Qwen25Vl


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Prompt]:
    """Eight prompts, asked in chunks of three."""
    monkeypatch.setattr(chunks, "SMALLEST", 3)
    shown = tiny_pictures(tmp_path / "pictures", 8)
    return [Prompt((Turn("user", (image, " ".join(["What is it?"] * (n + 1)))),)) for n, image in enumerate(shown)]


def _model(ahead: bool) -> Qwen25Vl:
    model = Qwen25Vl.model_validate({"engine": {"tokens_per_batch": 20}})
    model._engine.ahead = ahead
    return model


def _events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes when a plan is made, a batch started, and a call's results read."""
    events: list[str] = []
    plan, run, read = TreeWalk.__init__, TreeWalk.run, module._read

    def planned(self: TreeWalk, *args: Any, **kwargs: Any) -> None:
        events.append("plan")
        plan(self, *args, **kwargs)

    def started(self: TreeWalk, *args: Any, **kwargs: Any) -> Any:
        events.append("batch")
        return run(self, *args, **kwargs)

    def results(pending: Any) -> Any:
        events.append("read")
        return read(pending)

    monkeypatch.setattr(TreeWalk, "__init__", planned)
    monkeypatch.setattr(TreeWalk, "run", started)
    monkeypatch.setattr(module, "_read", results)
    return events


def _scored(model: Qwen25Vl, prompts: Sequence[Prompt], file: Path) -> list[AnswerLogprob]:
    store = ResponseCache(file)
    try:
        return CachedModel(lambda: model, lambda: "m", store).logprob(prompts, ["red"] * len(prompts))
    finally:
        store.close()


def test_the_next_call_is_planned_and_begun_before_results_are_read(
    prompts: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, model = _model(ahead=False), _model(ahead=True)
    for part in (plain, model):  # the comparison at the start is no part of the order
        part._engine.verify(part._rows(prompts[:1]))
    expected = _scored(plain, prompts, tmp_path / "plain.sqlite")
    events = _events(monkeypatch)
    assert _scored(model, prompts, tmp_path / "ahead.sqlite") == expected  # to the last bit
    calls = "".join({"plan": "p", "batch": "b", "read": "r"}[event] for event in events).split("r")
    # Of three prompts: the first call runs its three batches, then plans the second and starts one batch of it.
    assert calls == ["pbbbpb", "bbpb", "b", ""]


def test_a_cpu_begins_nothing_in_advance(
    prompts: list[Prompt], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Qwen25Vl.model_validate({"engine": {"tokens_per_batch": 20}})
    assert not model._engine.ahead
    model._engine.verify(model._rows(prompts[:1]))
    events = _events(monkeypatch)
    _scored(model, prompts, tmp_path / "plain.sqlite")
    assert "".join(event[0] for event in events) == "pbbbrpbbbrpbbr"


def test_a_call_that_was_not_expected_gets_its_own_results(prompts: list[Prompt]) -> None:
    plain, model = _model(ahead=False), _model(ahead=True)
    model.expect(prompts[3:6], ["red"] * 3)
    for asked, answers in ((prompts[:3], ["red"] * 3), (prompts[3:6], ["blue"] * 3), (prompts[3:6], ["red"] * 3)):
        assert model.logprob(asked, answers) == plain.logprob(asked, answers)


def test_what_is_wrong_with_the_next_call_is_said_by_that_call(prompts: list[Prompt], tmp_path: Path) -> None:
    """Results of the calls before it are kept, and asking again computes the rest."""
    lost = tmp_path / "lost.png"
    bad = [*prompts[:6], Prompt((Turn("user", (Image("lost", str(lost)), "What is it?")),))]
    model, store = _model(ahead=True), ResponseCache(tmp_path / "cache.sqlite")
    lost.write_bytes(b"no picture")
    asked = CachedModel(lambda: model, lambda: "m", store)
    with pytest.raises(DataError, match=r"lost\.png"):
        asked.logprob(bad, ["red"] * 7)
    assert asked.calls == 6
    lost.write_bytes(Path(str(prompts[0].turns[0].content[0].path)).read_bytes())  # type: ignore[union-attr]
    again = CachedModel(lambda: model, lambda: "m", store)
    assert len(again.logprob(bad, ["red"] * 7)) == 7 and again.calls == 1
    store.close()
