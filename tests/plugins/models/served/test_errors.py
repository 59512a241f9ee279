"""What goes wrong at a server is one line that says what to do, and what was measured stays."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leverplus_core import Decoding, LeverplusError, PluginError, Prompt, RecipeError, ServerError
from leverplus_core.plugins.manager import Catalog
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_models.served.model import Served
from tests.plugins.models.served.small_server import Fault, SmallServer, nested, no_json, slow, status, truncated

GREEDY = Decoding(max_new_tokens=1, num_beams=1)
NOWHERE = "http://127.0.0.1:9"
Start = Callable[[Any], SmallServer]


def asked(part: Served, prompts: list[Prompt]) -> LeverplusError:
    with pytest.raises(LeverplusError) as caught:
        part.generate(prompts, GREEDY)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (status(500, "CUDA error"), "answers 500: CUDA error"),
        (status(503, "overloaded"), "answers 503: overloaded"),
        (status(429, "slow down", Retry_After="0"), "answers 429: slow down"),
        (truncated, "broke off"),
        (no_json, "answers what is no JSON"),
        (nested, "answers what is no JSON"),
    ],
)
def test_a_failure_is_asked_again_once_and_then_told(
    part: Served, small: SmallServer, prompts: list[Prompt], fault: Fault, says: str
) -> None:
    [right] = part.generate(prompts[:1], GREEDY)
    small.faults.extend([fault])
    assert part.generate(prompts[:1], GREEDY) == [right]  # the second try
    small.faults.extend([fault, fault])
    error = asked(part, prompts[:1])
    assert isinstance(error, ServerError) and says in error.what and small.url in error.what and error.hint
    assert part.generate(prompts[:1], GREEDY) == [right]


def test_what_was_measured_before_a_failure_stays(
    part: Served, small: SmallServer, prompts: list[Prompt], tmp_path: Path
) -> None:
    store = ResponseCache(tmp_path / "responses.sqlite")
    cached = CachedModel(lambda: part, part.identity, store)
    cached.generate(prompts[:2], GREEDY)
    small.faults.extend([status(500), status(500)])
    with pytest.raises(ServerError):
        cached.generate(prompts, GREEDY)
    small.requests.clear()
    assert cached.generate(prompts, GREEDY) == part.generate(prompts, GREEDY)
    assert cached.calls == 4
    cached.close()


def test_the_server_says_how_long_to_wait(small: SmallServer, prompts: list[Prompt]) -> None:
    part = Served(url=small.url, retries=3)
    small.faults.append(status(429, "slow down", Retry_After="3600"))
    assert "answers 429" in asked(part, prompts[:1]).what  # an hour is not waited for
    assert len(small.asked("/v1/chat/completions")) == 1


def test_an_answer_that_takes_too_long(small: SmallServer, prompts: list[Prompt]) -> None:
    small.faults.append(slow(1.0))
    error = asked(Served(url=small.url, retries=0, timeout=0.2), prompts[:1])
    assert "gave no answer in 0.2 s" in error.what and "model.timeout" in error.hint


def test_a_wrong_address(prompts: list[Prompt]) -> None:
    error = asked(Served(url=NOWHERE), prompts)
    assert error.what == f"the server {NOWHERE} cannot be reached: connection refused."
    assert "model.url" in error.hint


def test_an_address_of_another_program(small: SmallServer, prompts: list[Prompt]) -> None:
    error = asked(Served(url=f"{small.url}/elsewhere"), prompts)
    assert "has no list of models" in error.what and "model.url" in error.hint


def test_a_model_that_the_server_has_not(small: SmallServer, prompts: list[Prompt]) -> None:
    error = asked(Served(url=small.url, model="dema"), prompts)
    assert error.what == f"the server {small.url} has no model 'dema'." and "Did you mean 'demo'?" in error.hint


def test_several_models_and_none_named(small: SmallServer, prompts: list[Prompt]) -> None:
    small.models = ["a", "b"]
    error = asked(Served(url=small.url), prompts)
    assert "has 2 models" in error.what and error.hint == "Set model.model to one of: a, b."


def test_a_server_of_another_kind(small: SmallServer, prompts: list[Prompt]) -> None:
    assert "is not llama_cpp" in asked(Served(url=small.url, server="llama_cpp"), prompts).what


def test_a_key_is_sent_and_never_told(
    small: SmallServer,
    prompts: list[Prompt],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    small.key = "right-key"
    error = asked(Served(url=small.url), prompts)
    assert "refuses access (401)" in error.what and "model.api_key_env" in error.hint
    monkeypatch.setenv("MY_KEY", "wrong-key")
    error = asked(Served(url=small.url, api_key_env="MY_KEY"), prompts)
    assert "Incorrect API key provided: ***" in error.what and "MY_KEY" in error.hint
    monkeypatch.setenv("MY_KEY", "right-key")
    part = Served(url=small.url, api_key_env="MY_KEY")
    assert part.generate(prompts[:1], GREEDY)
    told = [str(error), caplog.text, repr(part), part.model_dump_json(), str(part.identity())]
    assert not any("-key" in text.replace("MY_KEY", "") for text in told)


def test_a_key_in_the_place_of_its_name_is_not_quoted(small: SmallServer, prompts: list[Prompt]) -> None:
    error = asked(Served(url=small.url, api_key_env="sk-secret"), prompts)
    assert isinstance(error, PluginError) and "secret" not in str(error)
    assert "is empty" in asked(Served(url=small.url, api_key_env="LEVERPLUS_NO_SUCH"), prompts).what


@pytest.mark.parametrize("url", ["host:8000", "ftp://host", "http://", ""])
def test_an_address_that_is_none(catalog: Catalog, url: str) -> None:
    with pytest.raises(RecipeError, match="is no address such as http://127"):
        catalog.build("model", "served", {"url": url})


@pytest.mark.parametrize("url", ["http://me:secret@host:1", "http://host/?key=secret"])
def test_a_password_in_an_address_is_refused_and_not_quoted(prompts: list[Prompt], url: str) -> None:
    error = asked(Served(url=url), prompts)
    assert "holds a name, a password or a query" in error.what and "secret" not in str(error)


def test_addresses_may_stand_in_the_environment(
    small: SmallServer, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEVERPLUS_SERVER_URL", f"{small.url}/v1, {small.url}")
    assert Served().generate(prompts[:1], GREEDY) == Served(url=small.url).generate(prompts[:1], GREEDY)
    monkeypatch.setenv("LEVERPLUS_SERVER_URL", "somewhere")
    assert "LEVERPLUS_SERVER_URL" in asked(Served(), prompts).what
