"""Run the commands that a page shows and put what they print below them.

    python tools/transcript.py docs/results/demo.md

A block of a page that begins with ``` and a line `$ COMMAND` (going on over lines that end with a backslash) is run in
the folder that the tool is called in, at 80 columns; what follows the command in the block is replaced by what it
prints. Standard error is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"^```\n(\$ (?:[^\n]*\\\n)*[^\n]*\n)(.*?)^```$", re.MULTILINE | re.DOTALL)


def fill(match: re.Match[str]) -> str:
    command = match.group(1)
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(command[2:], shell=True, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{command}failed with exit code {done.returncode}:\n{done.stderr}")
    printed = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    print(command, end="", flush=True)
    return f"```\n{command}{printed}\n```"


def main() -> None:
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(BLOCK.sub(fill, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
