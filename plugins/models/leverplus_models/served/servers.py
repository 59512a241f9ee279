"""What each kind of server can do, and how it is asked: one class each, told apart by what they say of themselves.

All answer chats (`/v1/chat/completions`). The log-probability of a given answer they give each in its own way, or not
at all. It is always the model's own, before masks and temperatures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal, get_args

from leverplus_core import (
    AnswerLogprob,
    CheckpointError,
    Decoding,
    Prompt,
    ServerError,
    did_you_mean,
    fingerprint,
    load_pretrained,
)
from leverplus_models.served.http import Cluster, Endpoint, Get, Refused
from leverplus_models.served.pictures import Picture, Pictures, images_of

Kind = Literal["vllm", "llama_cpp", "sglang", "openai"]
CHAT = "/v1/chat/completions"
ASK = [{"role": "user", "content": "x"}]
"""A chat without images, to count the tokens of an answer after it."""
SAME = 1e-2
"""Two ways to one log-probability may differ by so much, in half precision."""


@dataclass(frozen=True)
class Running:
    """What a server says that it runs; servers of a cluster must say the same."""

    kind: Kind
    version: str
    model: str
    template: str = ""
    """A hash of the chat template, or of the tokens that it makes of a short chat; '' where neither is known."""
    tokenizer: str = ""
    """Where the tokenizer is, as the server names it."""
    images: bool = True

    def __str__(self) -> str:
        template = f", template {self.template[:8]}" if self.template else ""
        return f"{self.model} on {self.kind} {self.version}".rstrip() + template

    @property
    def identity(self) -> dict[str, str]:
        """What a result depends on. A path of the server's disk counts by its last part."""
        model = self.model.rstrip("/").rpartition("/")[2] if self.model.startswith("/") else self.model
        return {"server": self.kind, "version": self.version, "model": model, "template": self.template}


def describe(url: str, get: Get, wanted: str, kind: Kind | None) -> Running:
    """What the server behind `get` runs, of the models that it offers `wanted`, or its only one where that is ''.

    With `kind` the server is not asked which it is. Raises ServerError for a model that it has not, several of them
    with none wanted, and an address at which no model is.
    """
    listed = get("/v1/models")
    cards: list[dict[str, Any]] = listed.get("data", []) if isinstance(listed, dict) else []
    names = [str(card.get("id")) for card in cards]
    known = [*names, *(str(alias) for card in cards for alias in card.get("aliases") or ())]
    if wanted and known and wanted not in known:
        raise ServerError(f"the server {url} has no model '{wanted}'.", did_you_mean(wanted, set(known)))
    if not wanted and len(names) != 1:
        found = f"{len(names)} models" if names else "no list of models"
        raise ServerError(
            f"the server {url} has {found}.",
            f"Set model.model to one of: {', '.join(names[:20])}." if names else "Check model.url, or set model.model.",
        )
    model = wanted or names[0]
    owners = {str(card.get("owned_by")) for card in cards}
    if kind in (None, "llama_cpp") and isinstance(props := get("/props"), dict) and "build_info" in props:
        images = bool((props.get("modalities") or {}).get("vision", True))
        template = fingerprint(props.get("chat_template", ""))
        return Running("llama_cpp", str(props["build_info"]), model, template, images=images)
    info = (get("/get_model_info") or get("/model_info")) if kind in (None, "sglang") else None
    if isinstance(info, dict) and (path := info.get("tokenizer_path") or info.get("model_path")):
        about = get("/get_server_info") or get("/server_info") or {}
        return Running("sglang", str(about.get("version", "")), model, tokenizer=str(path))
    if kind == "vllm" or (kind is None and owners == {"vllm"}):
        about = get("/version")
        return Running("vllm", str(about.get("version", "")) if isinstance(about, dict) else "", model)
    if kind not in (None, "openai"):
        raise ServerError(f"the server {url} is not {kind}.", "Set model.server=auto.")
    return Running("openai", "", model)


class Server:
    """Any endpoint that is compatible with OpenAI's: answers by chat, and no log-probability of a given answer."""

    supports_logprob: ClassVar[bool] = False
    most_beams: ClassVar[int | None] = 1
    greedy: ClassVar[Mapping[str, Any]] = {}
    """Fields that turn off what the server, or the model's own settings on it, would do to a greedy answer."""

    def __init__(
        self, cluster: Cluster, pictures: Pictures, template_settings: Mapping[str, Any], tokenizer: str = ""
    ) -> None:
        self._cluster, self._pictures, self._tokenizer_path = cluster, pictures, tokenizer
        self.running: Running = cluster.description
        self._always: dict[str, Any] = {"model": self.running.model, "temperature": 0, **self.greedy}
        self._template: dict[str, Any] = {"chat_template_kwargs": template_settings} if template_settings else {}

    @property
    def template_hash(self) -> str:
        """A hash by which chat templates are told apart; '' where it is not known."""
        return self.running.template

    def generate(self, prompt: Prompt, decoding: Decoding) -> str:
        """The answer to a prompt. Raises Refused for one that the server will not answer."""
        reply = self._chat(prompt, max_tokens=decoding.max_new_tokens, **self._beams(decoding))
        message = self._first(reply).get("message") or {}
        text = message.get("content") or ""
        if not text and (message.get("reasoning_content") or message.get("reasoning")):
            raise ServerError(
                f"the model {self.running.model} thinks before it answers, and had no tokens left to answer.",
                "Set model.template_settings={enable_thinking: false}, or raise decoding.max_new_tokens.",
            )
        return str(text)

    def abandon(self) -> None:
        """End what is under way: requests are not repeated any more."""
        self._cluster.abandon()

    def logprob(self, prompt: Prompt, answer: str, end_mark: bool) -> AnswerLogprob:
        """The log-probability of an answer. Raises Refused as `generate`, ServerError where it is not given."""
        raise NotImplementedError

    def _beams(self, decoding: Decoding) -> dict[str, Any]:
        return {}

    def _chat(self, prompt: Prompt, **more: Any) -> Any:
        return self._post({"messages": self._pictures.messages(prompt), **more})

    def _post(self, body: dict[str, Any], path: str = CHAT) -> Any:
        return self._cluster.post(path, {**self._always, **self._template, **body})

    def _first(self, reply: Any) -> dict[str, Any]:
        try:
            choice: dict[str, Any] = reply["choices"][0]
        except (TypeError, KeyError, IndexError):
            raise self._unfit("no choice", reply) from None
        return choice

    def _unfit(self, lacks: str, reply: Any) -> ServerError:
        return ServerError(
            f"the {self.running.kind} server's answer has {lacks}: {str(reply)[:200]}", "Check its version."
        )

    def _tokens_of(self, reply: Any) -> list[dict[str, Any]]:
        """The generated tokens, each with its log-probability."""
        tokens = (self._first(reply).get("logprobs") or {}).get("content")
        if not isinstance(tokens, list) or not all(isinstance(token, dict) and "logprob" in token for token in tokens):
            raise self._unfit("no log-probabilities", reply)
        return tokens


class LlamaCpp(Server):
    """llama.cpp: a grammar of token ids forces the answer, whose tokens come with the model's own log-probabilities.

    One request, with the prefix cache. The end mark is the most probable of the model's tokens that end a turn: behind
    the grammar's last token the server allows no other.
    """

    supports_logprob: ClassVar[bool] = True
    greedy: ClassVar[Mapping[str, Any]] = {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}

    def logprob(self, prompt: Prompt, answer: str, end_mark: bool) -> AnswerLogprob:
        """See the class."""
        ids = self._ids(answer)
        grammar = "root ::= " + " ".join(f"<[{i}]>" for i in ids)
        count = len(ids) + end_mark
        reply = self._chat(prompt, grammar=grammar, max_tokens=count, logprobs=True, top_logprobs=1)
        tokens = self._tokens_of(reply)
        if len(tokens) != count or [token.get("id") for token in tokens[: len(ids)]] != list(ids):
            raise self._unfit(f"not the tokens {list(ids)} that its grammar asks for", self._first(reply))
        return AnswerLogprob(sum(float(token["logprob"]) for token in tokens), count)

    @cached_property
    def _ids(self) -> Callable[[str], tuple[int, ...]]:
        @lru_cache(maxsize=1 << 16)
        def ids(answer: str) -> tuple[int, ...]:
            asked = {"content": answer, "add_special": False, "parse_special": False}
            return tuple(self._post(asked, "/tokenize")["tokens"])

        return ids


class Vllm(Server):
    """vLLM: log-probabilities of a prompt that ends with the answer, or of the answer's one token.

    The first computes the whole prompt again, since vLLM passes its prefix cache over for them; the second, for answers
    of one token, uses the cache. An image is sent once to each server, and named after that.
    """

    supports_logprob: ClassVar[bool] = True
    most_beams: ClassVar[int | None] = None
    greedy: ClassVar[Mapping[str, Any]] = {"repetition_penalty": 1.0}

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._raw: bool | None = None
        """Whether log-probabilities of generated tokens are those before masks: a server may be started otherwise.
        Both ways are compared at first."""

    @cached_property
    def template_hash(self) -> str:
        """Of the tokens of a short chat, which depend on template and tokenizer."""
        return fingerprint(self._tokenize(ASK, add_generation_prompt=True))

    def logprob(self, prompt: Prompt, answer: str, end_mark: bool) -> AnswerLogprob:
        """See the class."""
        tokens, behind = self._count(answer)
        if len(tokens) != 1 or end_mark:
            return self._of_prompt(prompt, answer, tokens, behind if end_mark else None)
        if self._raw:
            return AnswerLogprob(self._of_token(prompt, tokens[0]), 1)
        whole = self._of_prompt(prompt, answer, tokens, None)
        if self._raw is None and whole.sum < -SAME:  # a token behind masks has 0, which an answer may have, too
            found = self._of_token(prompt, tokens[0])
            self._raw = abs(found - whole.sum) <= SAME * max(1.0, abs(whole.sum))
        return whole

    def _of_prompt(self, prompt: Prompt, answer: str, tokens: Sequence[int], behind: int | None) -> AnswerLogprob:
        """By the log-probabilities of the prompt and the answer; with `behind`, the number of tokens behind it in an
        ended turn, the first of which counts, too."""
        count = len(tokens)
        said = {"role": "assistant", "content": answer}
        form = {"add_generation_prompt": False, "continue_final_message": behind is None}
        reply = self._chat(prompt, said, max_tokens=1, prompt_logprobs=0, **form)
        rows = reply.get("prompt_logprobs") if isinstance(reply, dict) else None
        if not isinstance(rows, list) or len(rows) < count + (behind or 0):
            raise self._unfit("no prompt_logprobs", reply)
        first = len(rows) - count - (behind or 0)
        wanted = rows[first : first + count + (behind is not None)]
        try:
            found = [(int(token), float(of["logprob"])) for row in wanted for token, of in [*row.items()][:1]]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._unfit("prompt_logprobs of another form", wanted) from None
        if not tokens or [token for token, _ in found[:count]] != list(tokens) or len(found) != len(wanted):
            raise self._unfit(f"not the answer's tokens {list(tokens)} at the end of the prompt", wanted)
        values = [value for _, value in found]
        return AnswerLogprob(sum(values), len(values))

    def _of_token(self, prompt: Prompt, token: int) -> float:
        asked = {"logprobs": True, "top_logprobs": 0, "allowed_token_ids": [token], "return_tokens_as_token_ids": True}
        reply = self._chat(prompt, max_tokens=1, **asked)
        found = self._tokens_of(reply)
        if len(found) != 1 or found[0].get("token") != f"token_id:{token}":
            raise self._unfit(f"not the token {token} that is allowed", self._first(reply))
        return float(found[0]["logprob"])

    @cached_property
    def _count(self) -> Callable[[str], tuple[tuple[int, ...], int]]:
        @lru_cache(maxsize=1 << 16)
        def count(answer: str) -> tuple[tuple[int, ...], int]:
            """The tokens that an answer adds behind the generation prompt, and how many end its turn."""
            said = [*ASK, {"role": "assistant", "content": answer}]
            before = self._tokenize(ASK, add_generation_prompt=True)
            open_ = self._tokenize(said, add_generation_prompt=False, continue_final_message=True)
            ended = self._tokenize(said, add_generation_prompt=False)
            return tuple(open_[len(before) :]), len(ended) - len(open_)

        return count

    def _tokenize(self, messages: list[dict[str, Any]], **form: bool) -> list[int]:
        body = {"model": self.running.model, "messages": messages, **form, **self._template}
        tokens: list[int] = self._cluster.post("/tokenize", body)["tokens"]
        return tokens

    def _beams(self, decoding: Decoding) -> dict[str, Any]:
        if decoding.num_beams == 1:
            return {}
        return {"use_beam_search": True, "n": decoding.num_beams, "length_penalty": decoding.length_penalty}

    def _chat(self, prompt: Prompt, *said: dict[str, Any], **more: Any) -> Any:
        names = {self._pictures.of(image).name for image in images_of(prompt)}
        asked: list[tuple[Endpoint, frozenset[str]]] = []

        def body(endpoint: Endpoint) -> dict[str, Any]:
            known = frozenset(names & endpoint.images)
            asked.append((endpoint, known))
            messages = [*self._pictures.messages(prompt, named=True, known=known), *said]
            return {**self._always, **self._template, "messages": messages, **more}

        try:
            reply = self._cluster.post(CHAT, body)
        except Refused:
            endpoint, known = asked[-1]
            if not known:
                raise
            endpoint.images.clear()  # it has forgotten one: its cache has an end
            reply = self._cluster.post(CHAT, body)
        asked[-1][0].images.update(names)
        return reply


class Sglang(Server):
    """SGLang: input log-probabilities of its own route, from the end of the prompt on, so that its prefix cache holds.

    That route takes a rendered prompt: the tokenizer that the server names, or `model.tokenizer`, renders it here.
    """

    supports_logprob: ClassVar[bool] = True
    greedy: ClassVar[Mapping[str, Any]] = {"repetition_penalty": 1.0}

    @cached_property
    def template_hash(self) -> str:
        """Of the tokenizer's chat template; '' where the tokenizer is not here, nor any log-probability to be had."""
        try:
            return fingerprint(self._tokenizer.chat_template)
        except CheckpointError:
            return ""

    def logprob(self, prompt: Prompt, answer: str, end_mark: bool) -> AnswerLogprob:
        """See the class."""
        messages = self._pictures.messages(prompt, bare=True)
        images = [self._pictures.of(image) for image in images_of(prompt)]
        before = self._render(messages)
        whole = before + answer
        behind = 0
        if end_mark:
            ended = self._render([*messages, {"role": "assistant", "content": answer}], ended=True)
            if not ended.startswith(whole):
                raise ServerError("the chat template changes an answer, which then has no end mark.", "Leave it out.")
            behind = len(self._ids(ended)) - len(self._ids(whole))
            whole = ended
        ids = self._ids(whole)
        count = len(self._ids(before + answer)) - len(self._ids(before))
        length = self._prompt_length(before, images)
        # The first position has no log-probability: begin one before the answer. Images count by their tokens there.
        sent = {"return_logprob": True, "logprob_start_len": length - 1}
        reply = self._generate(whole, images, sent)
        rows = (reply.get("meta_info") or {}).get("input_token_logprobs") if isinstance(reply, dict) else None
        if not isinstance(rows, list) or len(rows) < count + behind:
            raise self._unfit("no input_token_logprobs", reply)
        end = -behind + 1 if behind > 1 else None
        wanted, asked = rows[len(rows) - count - behind : end], ids[len(ids) - count - behind : end]
        values = [row[0] for row in wanted]
        if [row[1] for row in wanted] != asked or not all(isinstance(value, int | float) for value in values):
            raise self._unfit(f"not the log-probabilities of {asked}", wanted)
        return AnswerLogprob(float(sum(values)), len(values))

    def _generate(self, text: str, images: Sequence[Picture], more: dict[str, Any]) -> Any:
        sampling = {"temperature": 0, "max_new_tokens": 1}
        shown = {"image_data": [image.url for image in images]} if images else {}
        return self._cluster.post("/generate", {"text": text, **shown, "sampling_params": sampling, **more})

    def _prompt_length(self, text: str, images: Sequence[Picture]) -> int:
        """Tokens of a rendered prompt, those of its images counted; asking leaves it in the prefix cache."""
        reply = self._generate(text, images, {})
        try:
            return int(reply["meta_info"]["prompt_tokens"])
        except (TypeError, KeyError):
            raise self._unfit("no prompt_tokens", reply) from None

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        path = self._tokenizer_path or self.running.tokenizer
        try:
            tokenizer = load_pretrained(AutoTokenizer, path)
        except CheckpointError as error:
            raise CheckpointError(
                f"SGLang takes prompts as text for log-probabilities, and its tokenizer is not here: {error.what}",
                "Name its folder or hub id in model.tokenizer.",
            ) from error
        if not tokenizer.chat_template:
            raise CheckpointError(
                f"the tokenizer of '{path}' has no chat template.", "Name another in model.tokenizer."
            )
        return tokenizer

    def _render(self, messages: list[dict[str, Any]], ended: bool = False) -> str:
        settings = self._template.get("chat_template_kwargs", {})
        rendered = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=not ended, **settings
        )
        return str(rendered)

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


SERVERS: Mapping[Kind, type[Server]] = {"vllm": Vllm, "llama_cpp": LlamaCpp, "sglang": Sglang, "openai": Server}
assert set(SERVERS) == set(get_args(Kind))
