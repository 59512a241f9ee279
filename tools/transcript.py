"""Run the commands that a page shows and put what they print below them.

    python tools/transcript.py docs/results/demo.md
    cd EMPTY_FOLDER && python .../tools/transcript.py .../docs/tutorial.md

A block of a page that begins with ``` and a line `$ COMMAND` (going on over lines that end with a backslash) is run in
the folder that the tool is called in, at 80 columns; what follows the command in the block is replaced by what it
prints. Standard error is left out. A comment before a block changes that:

    <!-- keep: REGEX -->   keep the lines of the output that match, with the rule below them; put `...` for the others
    <!-- serves -->        a server: it is stopped when it has printed a line, which is standard error's here
    <!-- file: NAME -->    the block is not a command: write what it holds into this file

tests/docs runs the same blocks and compares what they print with the page.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(
    r"^(?P<head>(?:<!-- keep: (?P<keep>[^\n]*) -->\n|(?P<serves><!-- serves -->\n))?"
    r"```\n(?P<command>\$ (?:[^\n]*\\\n)*[^\n]*\n))(?P<shown>.*?)^```$"
    r"|^<!-- file: (?P<name>\S+) -->\n```\w*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class File:
    """A block that is written into a file of the folder."""

    name: str
    text: str

    def write(self) -> None:
        Path(self.name).parent.mkdir(parents=True, exist_ok=True)
        Path(self.name).write_text(self.text, encoding="utf-8")


@dataclass(frozen=True)
class Command:
    """A block that runs a command: `line`, with its continuations, and what the page shows below it."""

    line: str
    keep: str | None
    serves: bool
    shown: str


def read(match: re.Match[str]) -> File | Command:
    if match["name"]:
        return File(match["name"], match["text"])
    return Command(match["command"][2:].rstrip("\n"), match["keep"], bool(match["serves"]), match["shown"])


def blocks(page: str) -> Iterator[File | Command]:
    """The blocks of a page that are run or written, in order."""
    return (read(match) for match in BLOCK.finditer(page))


def kept(printed: str, pattern: str | None) -> str:
    """The lines of `printed` that match, each run of others being one `...`; all lines without a pattern."""
    lines: list[str] = []
    for line in printed.splitlines():
        rule = set(line) == {"─"} and lines[-1:] != ["..."]
        if pattern is None or rule or re.search(pattern, line):
            lines.append(line.rstrip())
        elif lines[-1:] != ["..."]:
            lines.append("...")
    return "\n".join(lines)


def printed(command: Command) -> str:
    """What a command prints in the current folder, without the lines that the page leaves out.

    Raises SystemExit with the command and its standard error when it fails.
    """
    environment = {**os.environ, "COLUMNS": "80"}
    if command.serves:
        return _served(command.line, environment)
    done = subprocess.run(command.line, shell=True, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"$ {command.line}\nfailed with exit code {done.returncode}:\n{done.stderr}")
    return kept(done.stdout, command.keep)


def _served(line: str, environment: dict[str, str]) -> str:
    """The first line that a server prints; then it is told Ctrl-C, which is how a person stops it."""
    server = subprocess.Popen(
        f"exec {line}", shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert server.stdout is not None
    first = server.stdout.readline().rstrip()
    server.send_signal(signal.SIGINT)
    rest = server.communicate(timeout=60)[0]
    if "://" not in first:
        sys.exit(f"$ {line}\nprinted no address:\n{first}\n{rest}")
    return first


def fill(match: re.Match[str]) -> str:
    block = read(match)
    if isinstance(block, File):
        block.write()
        return match[0]
    print(f"$ {block.line}", flush=True)
    shown = printed(block)
    return f"{match['head']}{shown}\n```" if shown else f"{match['head']}```"


def main() -> None:
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(BLOCK.sub(fill, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
