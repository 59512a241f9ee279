"""Several servers of one model: the least busy one is asked, and a dead one is put aside and tried again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leverplus_core import Decoding, Prompt, ServerError
from leverplus_models.qwen2_5_vl import Qwen25Vl
from leverplus_models.served.http import Cluster, _pause, _retry_after
from leverplus_models.served.model import Served
from tests.plugins.models.served.small_server import SmallServer, status

CHAT = "/v1/chat/completions"
GREEDY = Decoding(max_new_tokens=1, num_beams=1)
Start = Callable[[Any], SmallServer]


def test_requests_go_round_the_servers(start: Start, prompts: list[Prompt], demo: Qwen25Vl) -> None:
    servers = [start("openai"), start("openai")]
    part = Served(url=[s.url for s in servers], concurrency=1)
    assert part.generate(prompts, GREEDY) == demo.generate(prompts, GREEDY)
    counts = [len(s.asked(CHAT)) for s in servers]
    assert sum(counts) == 4 and min(counts) >= 1
    assert part.identity() == Served(url=servers[0].url).identity()


def test_a_server_that_dies_leaves_its_work_to_the_others(start: Start, prompts: list[Prompt], demo: Qwen25Vl) -> None:
    servers = [start("openai"), start("openai")]
    part = Served(url=[s.url for s in servers], concurrency=1)
    part.generate(prompts[:2], GREEDY)
    servers[0].stop()
    assert part.generate(prompts, GREEDY) == demo.generate(prompts, GREEDY)
    assert [len(s.asked(CHAT)) for s in servers] == [1, 5]


def test_a_server_that_is_not_there_at_first_is_done_without(start: Start, prompts: list[Prompt]) -> None:
    small = start("openai")
    part = Served(url=["http://127.0.0.1:9", small.url], concurrency=1)
    assert len(part.generate(prompts, GREEDY)) == len(small.asked(CHAT)) == 4


def test_one_that_failed_is_asked_again_after_its_pause(start: Start, prompts: list[Prompt]) -> None:
    servers = [start("openai"), start("openai")]
    part = Served(url=[s.url for s in servers], concurrency=1)
    part.check_machine()
    servers[0].faults.append(status(500))
    for _ in range(5):
        part.generate(prompts, GREEDY)
    assert len(servers[0].asked(CHAT)) > 2


def test_a_server_that_comes_back_with_another_model_is_refused(start: Start, prompts: list[Prompt]) -> None:
    small = start("openai")
    part = Served(url=small.url)
    part.generate(prompts[:1], GREEDY)
    small.faults.append(status(502))
    small.models = ["another"]
    with pytest.raises(ServerError, match=r"the servers differ: .* runs another on openai, and .* runs demo"):
        part.generate(prompts[:1], GREEDY)


def test_servers_of_different_models_are_refused(start: Start, prompts: list[Prompt], tmp_path: Path) -> None:
    servers = [start("openai"), start("vllm")]
    with pytest.raises(ServerError, match=r"runs demo on vllm 0\.32\.0, and .* runs demo on openai"):
        Served(url=[s.url for s in servers]).identity()


def test_a_server_that_loads_its_model_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([503, 503, 200])

    def answer(request: Any) -> Any:
        import httpx2

        return httpx2.Response(next(said), json={"data": []})

    def describe(url: str, get: Callable[[str], Any]) -> Any:
        return get("/v1/models")

    import httpx2

    whole = httpx2.Client
    transport = httpx2.MockTransport(answer)
    monkeypatch.setattr(httpx2, "Client", lambda **more: whole(**{**more, "transport": transport}))
    assert Cluster(["http://127.0.0.1:1"], describe, retries=2).description == {"data": []}


def test_pauses_double_up_to_a_minute() -> None:
    assert [_pause(n) for n in (0, 1, 2, 12, 13, 2000)] == pytest.approx([0.01, 0.02, 0.04, 40.96, 60.0, 60.0])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("-3", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert _retry_after(value) == seconds
