"""What servers say of themselves, in the form of their documentation, and what is made of it."""

from __future__ import annotations

from typing import Any

import pytest

from leverplus_core import PluginError, ServerError
from leverplus_models.served.http import Cluster
from leverplus_models.served.model import Served
from leverplus_models.served.servers import Running, describe

LLAMA_CPP = {
    "/v1/models": {"object": "list", "data": [{"id": "/models/q.gguf", "aliases": ["q"], "owned_by": "llamacpp"}]},
    "/props": {"build_info": "b11549-abc", "modalities": {"vision": True}, "chat_template": "T"},
}
VLLM = {
    "/v1/models": {"object": "list", "data": [{"id": "q", "owned_by": "vllm", "max_model_len": 4096}]},
    "/version": {"version": "0.33.0"},
}
SGLANG = {
    "/v1/models": {"object": "list", "data": [{"id": "q", "owned_by": "sglang"}]},
    "/model_info": {"model_path": "org/q", "tokenizer_path": "org/q", "is_generation": True},
    "/server_info": {"version": "0.5.23"},
}
OTHER = {"/v1/models": {"object": "list", "data": [{"id": "q"}, {"id": "r"}]}}


@pytest.mark.parametrize(
    ("says", "wanted", "running"),
    [
        (VLLM, "", Running("vllm", "0.33.0", "q")),
        (SGLANG, "q", Running("sglang", "0.5.23", "q", tokenizer="org/q")),
        (OTHER, "r", Running("openai", "", "r")),
        ({}, "gpt", Running("openai", "", "gpt")),
    ],
)
def test_a_server_is_known_by_what_it_says(says: dict[str, Any], wanted: str, running: Running) -> None:
    assert describe("u", says.get, wanted, None) == running


def test_llama_cpp_is_known_by_its_properties_and_has_aliases() -> None:
    found = describe("u", LLAMA_CPP.get, "q", None)
    assert (found.kind, found.version, found.model, found.images) == ("llama_cpp", "b11549-abc", "q", True)
    whole = describe("u", LLAMA_CPP.get, "", None)
    assert whole.identity == {**found.identity, "model": "q.gguf"}  # not where the file lies
    changed = {**LLAMA_CPP, "/props": {**LLAMA_CPP["/props"], "chat_template": "U"}}
    assert describe("u", changed.get, "q", None).template != found.template


def test_a_kind_that_is_named_is_not_asked_for() -> None:
    asked: list[str] = []

    def get(path: str) -> Any:
        asked.append(path)
        return VLLM.get(path)

    assert describe("u", get, "q", "openai") == Running("openai", "", "q")
    assert asked == ["/v1/models"]
    with pytest.raises(ServerError, match="is not sglang"):
        describe("u", get, "q", "sglang")


def test_a_server_without_an_image_encoder_is_refused_before_the_first_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    blind = {**LLAMA_CPP, "/props": {**LLAMA_CPP["/props"], "modalities": {"vision": False}}}
    monkeypatch.setattr(Cluster, "_described", lambda self, endpoint: describe(endpoint.url, blind.get, "", None))
    with pytest.raises(PluginError, match=r"q\.gguf reads no images") as caught:
        Served(url="http://127.0.0.1:9").check_machine()
    assert "--mmproj" in caught.value.hint
