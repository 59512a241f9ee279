"""`served`: a model behind servers that others have started."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from leverplus_core import (
    AnswerLogprob,
    DataError,
    Decoding,
    Model,
    PictureSettings,
    PluginError,
    Prompt,
    PromptError,
)
from leverplus_models.served.http import Cluster, Get, Refused
from leverplus_models.served.pictures import Pictures
from leverplus_models.served.servers import SERVERS, Kind, Running, Server, describe

ADDRESS = "LEVERPLUS_SERVER_URL"
"""The environment variable that holds the addresses where a recipe names none, separated by spaces or commas."""
HERE = "http://127.0.0.1:8000"
CONTROL = re.compile(r"<\|\w+\|>")
CONNECTING = threading.Lock()
"""Threads that ask a part for the first time would connect it twice."""
T = TypeVar("T")


class Served(PictureSettings, Model):
    """A model behind a server, or several: vLLM, llama.cpp, SGLang, or any endpoint like OpenAI's.

    Where the server can say it, the log-probability of a given answer is the model's own. Images are shrunk to
    `max_pixels` and sent as PNG, so that a result does not hang on the server's limits.
    """

    url: tuple[str, ...] = Field(
        (), description=f"of one server or several, without /v1; none: ${ADDRESS}, or else {HERE}"
    )
    model: str = Field("", description="its name on the server; '' where the server has one")
    server: Literal["auto", "vllm", "llama_cpp", "sglang", "openai"] = Field(
        "auto", description="auto: the server is asked what it is"
    )
    checkpoint: str = Field("", description="what you know of the weights, such as a commit: part of the identity")
    api_key_env: str = Field("", description="NAME of the environment variable that holds the key; '' for none")
    concurrency: int = Field(16, ge=1, le=1024, description="requests at once to each server")
    timeout: float = Field(120, gt=0, le=86400, description="seconds in which an answer must be there")
    retries: int = Field(5, ge=0, le=100, description="of a request that failed, for each server, with growing pauses")
    max_pixels: int = Field(640 * 480, ge=1, description="larger images are shrunk before they are sent")
    template_settings: Mapping[str, Any] = Field({}, description="for the chat template: {enable_thinking: false}")
    tokenizer: str = Field("", description="SGLang: folder or hub id of the tokenizer, where the server's is not here")

    @field_validator("url", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_address(url) for url in value)

    def identity(self) -> dict[str, object]:
        """Kind, version and model of the server, its chat template, and how images are shown; not where it is.

        Raises ServerError where no server can be reached.
        """
        server = self._server
        return {
            **server.running.identity,
            "template": server.template_hash,
            "template_settings": dict(self.template_settings),
            "checkpoint": self.checkpoint,
            "max_pixels": self.max_pixels,
            "background": self.background,
        }

    def check_machine(self) -> None:
        """Raises ServerError for a server that is not there, refuses the key, or has not the model; PluginError for one
        that reads no images."""
        if not self._server.running.images:
            raise PluginError(
                f"the server's model {self._server.running.model} reads no images.",
                "Start it with its image encoder (llama.cpp: --mmproj), or name another model.",
            )

    def supports_logprob(self) -> bool:
        """Whether this kind of server gives the log-probability of a given answer. Raises ServerError as `identity`."""
        return self._server.supports_logprob

    def most_beams(self) -> int | None:
        """1 where the server has no beam search. Raises ServerError as `identity`."""
        return self._server.most_beams

    def logprob(self, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool = False) -> list[AnswerLogprob]:
        """Log-probability of each answer as the prompt's continuation.

        Raises PluginError where the server gives none, DataError for an empty answer and a prompt that it refuses.
        """
        if any(not answer.strip() for answer in answers):
            raise DataError("an empty answer has no log-probability.", "Every question needs an answer.")
        if prompts and not self.supports_logprob():
            raise PluginError(
                f"a server of kind {self._server.running.kind} gives no log-probability of an answer.",
                "Measure by answers alone: scoring.beam_search.num_beams=0, and a reward of the accuracy.",
            )
        rows = list(zip(prompts, answers, strict=True))
        return self._each(rows, lambda row: self._server.logprob(row[0], row[1], end_mark), lambda row: row[0])

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[str]:
        """The text that follows each prompt.

        Raises PluginError for more beams than the server has, DataError for a prompt that it refuses.
        """
        most = self.most_beams() if prompts else None
        if most is not None and decoding.num_beams > most:
            raise PluginError(
                f"a server of kind {self._server.running.kind} has no beam search.", "Set decoding.num_beams=1."
            )
        return self._each(prompts, lambda prompt: self._server.generate(prompt, decoding), lambda prompt: prompt)

    @property
    def device_name(self) -> str:
        """What rates are measured on."""
        return f"{self._server.running} at {len(self._urls)} server{'s' * (len(self._urls) > 1)}"

    def _each(self, rows: Sequence[T], ask: Callable[[T], Any], prompt_of: Callable[[T], Prompt]) -> list[Any]:
        """`ask` of each row, so many at once; the first error ends what has not begun."""

        def asked(row: T) -> Any:
            if found := _control_token(prompt_of(row)):
                raise PromptError(
                    prompt_of(row),
                    f"it has the text '{found}', which the server would read as a control token.",
                    "Remove it from the data.",
                )
            try:
                return ask(row)
            except Refused as refused:
                raise PromptError(
                    prompt_of(row),
                    f"{refused}.",
                    "If the prompt is too long: fewer shots, a smaller model.max_pixels, or a server with a longer "
                    "context; if it has too many images: raise the server's limit.",
                ) from refused

        if not rows:
            return []
        pool = ThreadPoolExecutor(min(self.concurrency * len(self._urls), len(rows)), thread_name_prefix="served")
        try:
            return list(pool.map(asked, rows))
        except BaseException:  # an interrupt, too
            self._server.abandon()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    @property
    def _urls(self) -> tuple[str, ...]:
        found = os.environ.get(ADDRESS, "").replace(",", " ").split()
        try:
            urls = self.url or tuple(_address(url) for url in found) or (HERE,)
        except ValueError as error:
            raise PluginError(f"the environment variable {ADDRESS}: {error}.") from error
        # Here, where nothing quotes it: a run would store it.
        if any(parts.username or parts.password or parts.query for parts in map(urlsplit, urls)):
            raise PluginError(
                "a server's address holds a name, a password or a query.", "Name the key in model.api_key_env instead."
            )
        return urls

    @cached_property
    def _connected(self) -> Server:
        kind: Kind | None = None if self.server == "auto" else self.server

        def described(url: str, get: Get) -> Running:
            return describe(url, get, self.model, kind)

        key = _key(self.api_key_env)
        cluster = Cluster(self._urls, described, key, self.api_key_env, self.timeout, self.retries)
        running: Running = cluster.description
        return SERVERS[running.kind](
            cluster, Pictures(self, self.max_pixels), dict(self.template_settings), self.tokenizer
        )

    @property
    def _server(self) -> Server:
        with CONNECTING:
            return self._connected


def _address(url: str) -> str:
    """The URL of a server without what clients add. Raises ValueError for what is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no address such as {HERE}")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _control_token(prompt: Prompt) -> str:
    """The first text of a prompt that looks like a control token of a chat format; '' for none."""
    texts = (piece for turn in prompt.turns for piece in turn.content if isinstance(piece, str))
    return next((found[0] for text in texts if (found := CONTROL.search(text))), "")


def _key(name: str) -> str:
    if not name:
        return ""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):  # perhaps the key itself: it is not quoted
        raise PluginError(
            "model.api_key_env is no name of an environment variable.",
            "Put the key into a variable and name that: a key in a recipe would be stored with the run.",
        )
    key = os.environ.get(name, "").strip()
    if not key:
        raise PluginError(f"the environment variable {name}, which model.api_key_env names, is empty.", "Set it.")
    if not key.isascii() or not key.isprintable():
        raise PluginError(f"the environment variable {name} holds characters that no key has.", "Set it again.")
    return key
