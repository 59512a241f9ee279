"""docs/harnesses.md: each command runs, in order, in a folder with the logs that it names, and prints what is shown."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs import pages

Cli = Callable[..., tuple[int, str, str]]
PAGE = pages.ROOT / "docs" / "harnesses.md"
LOGS = pages.ROOT / "tests" / "plugins" / "formats" / "logs"
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d.-]+\d")


def printed(page: Path) -> list[tuple[str, list[str]]]:
    """Each command of the page's transcripts, and the lines below it."""
    found: list[tuple[str, list[str]]] = []
    for block in pages.blocks(""):
        if block.page == page:
            for line in block.text.splitlines():
                if line.startswith("$ "):
                    found.append((line[2:], []))
                else:
                    found[-1][1].append(line.rstrip())
    return found


def test_the_page_shows_what_its_commands_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "new", "changed"):
        shutil.copytree(LOGS / f"lm_eval_{name}", tmp_path / name)
    commands = printed(PAGE)
    for command, shown in commands:
        words = [
            str(path.relative_to(tmp_path)) if "*" in word else word
            for word in shlex.split(command)[1:]
            for path in (sorted(tmp_path.glob(word)) if "*" in word else [tmp_path])
        ]
        _, out, err = cli(*words)
        lines = [TIME.sub("TIME", line.rstrip()) for line in (out + err).splitlines()]
        assert lines == shown or not shown, command
    assert len(commands) == 8 and (tmp_path / "sums.html").stat().st_size > 10_000
    assert {shown[-1] == "" for _, shown in commands if shown} == {False}
