"""vLLM, SGLang and others, by the documented form of what they are asked and answer (`small_server`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pil

from leverplus_core import Decoding, Image, PluginError, Prompt, PromptError, ServerError, Turn
from leverplus_core.testing import check_model, tiny_pictures
from leverplus_models.qwen2_5_vl import Qwen25Vl
from leverplus_models.served.model import Served
from tests.plugins.models.served.small_server import SmallServer, status

CHAT = "/v1/chat/completions"
Start = Callable[[Any], SmallServer]


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "openai"])
def test_each_kind_keeps_the_contract_of_a_model(start: Start, dialect: str, tmp_path: Path) -> None:
    small = start(dialect)
    part = Served(url=small.url, retries=0)
    assert part.identity()["server"] == dialect
    assert part.supports_logprob() is (dialect != "openai")
    assert part.most_beams() is (None if dialect == "vllm" else 1) or part.most_beams() == 1
    check_model(part, tiny_pictures(tmp_path / "pictures", count=4, side=56))


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
@pytest.mark.parametrize("end_mark", [False, True])
def test_log_probabilities_are_the_models_own(
    start: Start, demo: Qwen25Vl, prompts: list[Prompt], dialect: str, end_mark: bool
) -> None:
    answers = ["red", "blue circle", "green", "no red star"]
    found = Served(url=start(dialect).url).logprob(prompts, answers, end_mark)
    own = demo.logprob(prompts, answers, end_mark)
    assert [r.tokens for r in found] == [r.tokens for r in own]
    assert [r.sum for r in found] == pytest.approx([r.sum for r in own], abs=1e-4)


def test_vllm_is_asked_for_one_token_where_an_answer_has_one(
    part: Served, small: SmallServer, prompts: list[Prompt]
) -> None:
    part.logprob(prompts[:3], ["blue"] * 3)
    ways = ["prompt_logprobs" if "prompt_logprobs" in body else "allowed_token_ids" for body in small.asked(CHAT)]
    # The first answer is asked in both ways, which must agree.
    assert ways == ["prompt_logprobs", "allowed_token_ids", "allowed_token_ids", "allowed_token_ids"]


def test_vllm_that_gives_log_probabilities_behind_masks_is_asked_by_the_prompt(
    part: Served, small: SmallServer, demo: Qwen25Vl, prompts: list[Prompt]
) -> None:
    small.masked = True
    found, own = (of.logprob(prompts[:2], ["blue", "blue"]) for of in (part, demo))
    assert [r.sum for r in found] == pytest.approx([r.sum for r in own], abs=1e-4)
    assert all(r.sum < -1 for r in own)


def test_vllm_is_sent_an_image_once_and_again_when_it_has_forgotten_it(
    part: Served, small: SmallServer, prompts: list[Prompt]
) -> None:
    def sent() -> list[bool]:
        parts = [part for message in small.asked(CHAT)[-1]["messages"] for part in message["content"]]
        return [part["image_url"] is not None for part in parts if isinstance(part, dict) and "uuid" in part]

    greedy = Decoding(max_new_tokens=1, num_beams=1)
    first = part.generate(prompts[3:], greedy)
    assert sent() == [True] * 4
    part.generate(prompts[2:3], greedy)
    assert sent() == [False] * 3
    small.images.clear()
    assert part.generate(prompts[3:], greedy) == first
    assert sent() == [True] * 4


def test_vllm_searches_with_beams(part: Served, small: SmallServer, demo: Qwen25Vl, prompts: list[Prompt]) -> None:
    beams = Decoding(max_new_tokens=2, num_beams=3, length_penalty=1.0)
    assert part.generate(prompts, beams) == demo.generate(prompts, beams)
    [body] = small.asked(CHAT)[:1]
    assert (body["use_beam_search"], body["n"], body["length_penalty"], body["temperature"]) == (True, 3, 1.0, 0)


def test_a_server_without_beams_refuses_them(start: Start, prompts: list[Prompt]) -> None:
    part = Served(url=start("openai").url)
    with pytest.raises(PluginError, match="no beam search") as caught:
        part.generate(prompts, Decoding(num_beams=2))
    assert "decoding.num_beams=1" in caught.value.hint
    with pytest.raises(PluginError, match="gives no log-probability"):
        part.logprob(prompts[:1], ["red"])


def test_pictures_are_shrunk_before_they_are_sent(start: Start, tmp_path: Path) -> None:
    small = start("openai")
    Pil.new("RGB", (400, 100), "red").save(tmp_path / "wide.png")
    prompt = Prompt((Turn("user", (Image("i", path=str(tmp_path / "wide.png")), "What colour is it?")),))
    Served(url=small.url, max_pixels=10_000).generate([prompt], Decoding(1, 1))
    [sent] = [path for path in tmp_path.glob("*.png") if path.name != "wide.png"]
    with Pil.open(sent) as picture:
        assert picture.size == (200, 50)


def test_a_models_settings_of_its_own_do_not_change_greedy_answers(part: Served, small: SmallServer) -> None:
    part.generate([Prompt((Turn("user", ("What is it?",)),))], Decoding(1, 1))
    [body] = small.asked(CHAT)
    assert (body["temperature"], body["repetition_penalty"]) == (0, 1.0)
    assert body["messages"] == [{"role": "user", "content": "What is it?"}]


def test_settings_of_the_chat_template_are_sent_and_belong_to_the_identity(small: SmallServer) -> None:
    part = Served(url=small.url, template_settings={"enable_thinking": False})
    part.generate([Prompt((Turn("user", ("What is it?",)),))], Decoding(1, 1))
    assert small.asked(CHAT)[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert part.identity() != Served(url=small.url).identity()


def test_a_text_that_a_server_would_take_for_a_control_token_is_refused(part: Served, small: SmallServer) -> None:
    prompt = Prompt((Turn("user", ("What is <|im_end|> it?",)),))
    with pytest.raises(PromptError, match=r"the text '<\|im_end\|>'"):
        part.generate([prompt], Decoding(1, 1))
    assert not small.requests


def test_tokens_that_are_not_the_answers_are_refused(
    part: Served, small: SmallServer, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chat template that adds something behind the last message would otherwise shift what is read."""
    whole = small.post

    def shifted(path: str, body: dict[str, Any]) -> Any:
        found = whole(path, body)
        if "prompt_logprobs" in found:
            found["prompt_logprobs"].append({"5": {"logprob": -1.0}})
        return found

    monkeypatch.setattr(small, "post", shifted)
    with pytest.raises(ServerError, match="not the answer's tokens"):
        part.logprob(prompts[:1], ["blue circle"])


def test_a_prompt_that_is_refused_is_named(part: Served, small: SmallServer, prompts: list[Prompt]) -> None:
    small.faults.append(status(400, "This model's maximum context length is 2048 tokens"))
    with pytest.raises(PromptError, match="maximum context length") as caught:
        part.generate(prompts[:1], Decoding(1, 1))
    assert caught.value.prompt == prompts[0] and "fewer shots" in caught.value.hint
