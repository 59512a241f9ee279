from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from leverplus_core import Prompt
from leverplus_core.recipes.settings import PromptSettings
from leverplus_core.scoring.prompt import build_prompt
from leverplus_core.testing import tiny_demonstrations, tiny_pictures, tiny_questions
from leverplus_models.qwen2_5_vl import Qwen25Vl
from leverplus_models.served.model import Served
from tests.plugins.models.served.small_server import SmallServer


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leverplus_models.served.http.FIRST_PAUSE", 0.01)


@pytest.fixture(scope="session")
def demo() -> Qwen25Vl:
    return Qwen25Vl(path="demo", device="cpu")


@pytest.fixture
def start(demo: Qwen25Vl, tmp_path: Path) -> Iterator[Callable[[Any], SmallServer]]:
    """A small server of a dialect."""
    with ExitStack() as running:
        yield lambda dialect: running.enter_context(SmallServer(dialect, demo, tmp_path).running())


@pytest.fixture
def small(start: Callable[[Any], SmallServer]) -> SmallServer:
    return start("vllm")


@pytest.fixture
def part(small: SmallServer) -> Served:
    """Gives up soon."""
    return Served(url=small.url, retries=1, concurrency=1, timeout=20)


@pytest.fixture(scope="session")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    """Of zero to three demonstrations."""
    questions = tiny_questions(tiny_pictures(tmp_path_factory.mktemp("pictures"), count=4, side=56))
    shown = tiny_demonstrations(questions)
    settings = PromptSettings(system="Answer with one word.")
    return [build_prompt(shown[1 : 1 + i], questions[0], settings) for i in range(4)]
