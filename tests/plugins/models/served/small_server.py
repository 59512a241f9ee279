"""A small server that answers from the demo model of this process, in the dialect of vLLM, SGLang or neither.

What it understands and says has the documented form of these servers' requests and answers:
- vLLM's OpenAI-compatible server: `prompt_logprobs`, `continue_final_message`, `allowed_token_ids`, `use_beam_search`,
  `/tokenize` of messages, images by `uuid`;
- SGLang's native `/generate`: `image_data`, `return_logprob`, `logprob_start_len`, `input_token_logprobs`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from leverplus_core import Decoding, Image, Prompt, Turn, find_checkpoint
from leverplus_models.qwen2_5_vl import Qwen25Vl

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
IMAGE_TOKENS = 4
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }}{% else %}" + IMAGE + "{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_ONE_AT_A_TIME = threading.Lock()
"""Servers of a test share the model."""
Fault = Callable[["_Handler"], None]


class SmallServer:
    """`faults` are what the next requests for an answer meet, in order (None: nothing); `requests` what was asked."""

    def __init__(self, dialect: Literal["vllm", "sglang", "openai"], model: Qwen25Vl, folder: Path) -> None:
        self.dialect, self.model, self.folder = dialect, model, folder
        self.faults: deque[Fault | None] = deque()
        self.requests: list[tuple[str, Any]] = []
        self.images: dict[str, str] = {}
        self.key = ""
        self.models = ["demo"]
        self.masked = False
        """Whether log-probabilities are those behind masks, as `--logprobs-mode processed_logprobs` has it."""
        self.stopped = False
        tokenizer = model.tokenizer
        tokenizer.chat_template = TEMPLATE
        self.tokenizer = tokenizer
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"small": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[SmallServer]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join()

    def stop(self) -> None:
        """As when its process ends: connections that are open break off, too."""
        self.stopped = True
        self._http.shutdown()
        self._http.server_close()

    def asked(self, path: str) -> list[Any]:
        return [body for at, body in self.requests if at == path]

    # --- what it says of itself ---

    def get(self, path: str) -> Any:
        if path == "/v1/models":
            owner = {"vllm": "vllm", "sglang": "sglang"}.get(self.dialect, "someone")
            return {"object": "list", "data": [{"id": name, "owned_by": owner} for name in self.models]}
        if path == "/version" and self.dialect == "vllm":
            return {"version": "0.32.0"}
        if path == "/get_model_info" and self.dialect == "sglang":
            self.tokenizer.save_pretrained(self.folder / "tokenizer")
            shutil.copy(Path(find_checkpoint("demo")) / "config.json", self.folder / "tokenizer")
            return {"model_path": "demo", "tokenizer_path": str(self.folder / "tokenizer"), "is_generation": True}
        if path == "/get_server_info" and self.dialect == "sglang":
            return {"version": "0.5.23"}
        return None

    # --- what it answers ---

    def post(self, path: str, body: dict[str, Any]) -> Any:
        with _ONE_AT_A_TIME:
            if path == "/v1/chat/completions":
                return self._chat(body)
            if path == "/tokenize" and self.dialect == "vllm":
                return {"tokens": self._tokens(body), "count": len(self._tokens(body))}
            if path == "/generate" and self.dialect == "sglang":
                return self._generate(body)
        return None

    def _chat(self, body: dict[str, Any]) -> Any:
        messages = list(body["messages"])
        said = messages.pop()["content"] if messages[-1]["role"] == "assistant" else None
        prompt = Prompt(tuple(self._turn(message) for message in messages))
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
        answer: dict[str, Any] = {"object": "chat.completion", "choices": [choice]}
        vllm = self.dialect == "vllm"
        if vllm and body.get("prompt_logprobs") is not None:
            assert said is not None and body["add_generation_prompt"] is False
            values = self._logprobs(prompt, said, end_mark=not body["continue_final_message"])
            ids = self._ids(said + ("" if body["continue_final_message"] else "<|im_end|>"))
            told = zip(ids, values, strict=True)
            rows = [{str(i): {"logprob": v, "rank": 1, "decoded_token": "?"}} for i, v in told]
            answer["prompt_logprobs"] = [None, *[{"5": {"logprob": -1.0}}] * 20, *rows]
            choice["message"] = {"role": "assistant", "content": "?"}
        elif vllm and (allowed := body.get("allowed_token_ids")):
            [token] = allowed
            value = self._logprobs(prompt, self.tokenizer.decode([token]), end_mark=False)[0]
            found = {"token": f"token_id:{token}", "logprob": 0.0 if self.masked else value, "top_logprobs": []}
            choice["logprobs"] = {"content": [found]}
            choice["message"] = {"role": "assistant", "content": self.tokenizer.decode([token])}
        else:
            beams = body.get("n", 1) if body.get("use_beam_search") else 1
            decoding = Decoding(body["max_tokens"], beams, body.get("length_penalty", 0.0))
            choice["message"] = {"role": "assistant", "content": self.model.generate([prompt], decoding)[0]}
        return answer

    def _turn(self, message: dict[str, Any]) -> Turn:
        if isinstance(message["content"], str):
            return Turn(message["role"], (message["content"],))
        return Turn(message["role"], tuple(map(self._piece, message["content"])))

    def _piece(self, part: dict[str, Any]) -> str | Image:
        if part["type"] == "text":
            return str(part["text"])
        if part["image_url"] is None:
            if part["uuid"] not in self.images:
                raise ValueError(f"no cached item for {part['uuid']}")
            return self._image(self.images[part["uuid"]])
        if "uuid" in part:
            self.images[part["uuid"]] = part["image_url"]["url"]
        return self._image(part["image_url"]["url"])

    def _image(self, url: str) -> Image:
        data = base64.b64decode(url.removeprefix("data:image/png;base64,"))
        path = self.folder / f"{hashlib.sha256(data).hexdigest()}.png"
        path.write_bytes(data)
        return Image(path.name, path=str(path))

    def _logprobs(self, prompt: Prompt, answer: str, end_mark: bool) -> list[float]:
        """Of each word, which is a token of the demo's tokenizer, and of the end mark."""
        words = answer.split()
        starts = [" ".join(words[: i + 1]) for i in range(len(words))]
        sums = [0.0, *(r.sum for r in self.model.logprob([prompt] * len(words), starts))]
        if end_mark:
            sums.append(self.model.logprob([prompt], [answer], end_mark=True)[0].sum)
        return [after - before for before, after in pairwise(sums)]

    def _tokens(self, body: dict[str, Any]) -> list[int]:
        form = {
            "add_generation_prompt": body.get("add_generation_prompt", True),
            "continue_final_message": body.get("continue_final_message", False),
        }
        return self._ids(str(self.tokenizer.apply_chat_template(body["messages"], tokenize=False, **form)))

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _generate(self, body: dict[str, Any]) -> Any:
        images = iter(body.get("image_data") or [])
        *turns, said = re.findall(r"<\|im_start\|>(\w+)\n(.*?)(?=<\|im_start\|>|\Z)", body["text"], re.DOTALL)

        def pieces(text: str) -> Iterator[str | Image]:
            for i, piece in enumerate(text.removesuffix("<|im_end|>\n").split(IMAGE)):
                if i:
                    yield self._image(next(images))
                if piece:
                    yield piece

        prompt = Prompt(tuple(Turn(role, tuple(pieces(text))) for role, text in turns))
        assert said[0] == "assistant"
        length = len(self._ids(body["text"])) + body["text"].count(IMAGE) * (IMAGE_TOKENS - 1)
        meta: dict[str, Any] = {"prompt_tokens": length}
        if body.get("return_logprob"):
            ended = said[1].endswith("<|im_end|>\n")
            values = self._logprobs(prompt, said[1].removesuffix("<|im_end|>\n"), ended)
            assert body["logprob_start_len"] == length - len(values) - 1  # one before the answer
            ids = self._ids(body["text"])[-len(values) :]
            meta["input_token_logprobs"] = [[None, 21, None], *([v, i, None] for i, v in zip(ids, values, strict=True))]
        return {"text": "?", "meta_info": meta}


class _Handler(BaseHTTPRequestHandler):
    small: SmallServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._allowed() and self._answer(self.small.get(self.path))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.small.stopped:
            self.close_connection = True
            return
        if not self._allowed():
            return
        self.small.requests.append((self.path, body))
        if self.path != "/tokenize" and self.small.faults and (fault := self.small.faults.popleft()) is not None:
            fault(self)
            return
        try:
            self._answer(self.small.post(self.path, body))
        except ValueError as error:
            self.say(400, {"error": {"message": str(error), "type": "BadRequestError", "code": 400}})

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization", "")
        if self.small.key and given != f"Bearer {self.small.key}":
            self.say(401, {"error": {"message": f"Incorrect API key provided: {given.removeprefix('Bearer ')}."}})
            return False
        return True

    def _answer(self, found: Any) -> None:
        self.say(404, {"detail": "Not Found"}) if found is None else self.say(200, found)

    def say(self, status: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)


def status(code: int, message: str = "no", **headers: str) -> Fault:
    """An error of this code."""
    return lambda handler: handler.say(code, {"error": {"message": message}}, **headers)


def truncated(handler: _Handler) -> None:
    """An answer that breaks off."""
    handler.say(200, b'{"choices": [{"mess', Content_Length="900")
    handler.close_connection = True
    handler.connection.close()


def no_json(handler: _Handler) -> None:
    """An answer of another program."""
    handler.say(200, b"<html>Welcome</html>")


def nested(handler: _Handler) -> None:
    """An answer too deep to read."""
    handler.say(200, b"[" * 100_000 + b"]" * 100_000)


def slow(seconds: float) -> Fault:
    """An answer that comes late."""

    def wait(handler: _Handler) -> None:
        time.sleep(seconds)
        handler.say(200, {})

    return wait
