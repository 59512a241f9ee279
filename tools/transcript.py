"""Run the commands that a page shows and put what they print below them.

    python tools/transcript.py docs/results/demo.md
    cd EMPTY_FOLDER && python .../tools/transcript.py .../docs/tutorial.md

A block of a page that begins with ``` and a line `$ COMMAND` (going on over lines that end with a backslash) is run in
the folder that the tool is called in, at 80 columns; what follows the command in the block is replaced by what it
prints. Standard error is left out. A comment before a block changes that:

    <!-- keep: REGEX -->   keep the lines of the output that match, with the rule below them; put `...` for the others
    <!-- file: NAME -->    the block is not a command: write what it holds into this file
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(
    r"^(?P<head>(?:<!-- keep: (?P<keep>[^\n]*) -->\n)?```\n(?P<command>\$ (?:[^\n]*\\\n)*[^\n]*\n)).*?^```$"
    r"|^<!-- file: (?P<name>\S+) -->\n```\w*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


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


def fill(match: re.Match[str]) -> str:
    if match["name"]:
        Path(match["name"]).write_text(match["text"], encoding="utf-8")
        return match[0]
    command = match["command"]
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(command[2:], shell=True, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{command}failed with exit code {done.returncode}:\n{done.stderr}")
    print(command, end="", flush=True)
    shown = kept(done.stdout, match["keep"])
    return f"{match['head']}{shown}\n```" if shown else f"{match['head']}```"


def main() -> None:
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(BLOCK.sub(fill, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
