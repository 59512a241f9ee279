"""Pages of docs/ whose blocks are run: what a block prints has the shape that the page shows."""

from __future__ import annotations

import re
from pathlib import Path

from tools import transcript

DOCS = Path(__file__).parents[2] / "docs"

NUMBER = re.compile(r"(?<![A-Za-z_\d])[+-]?\d[\d,.:]*(?:T[\d:]+)?%?|\b(?=[0-9a-f]*\d)[0-9a-f]{6,}\b")
"""A figure, a time or an id: what differs from one recording to the next."""
VERDICT = re.compile(r"a better|b better|better|worse|no difference seen|baseline$")
RULE = re.compile(r"─+")
CHOSEN = {"random", "text_knn", "image_knn", "text_image_knn", "bank_knn", "bm", "fixed", "zero_shot"}
"""What the head of a column may name: the best baseline, which a smaller run chooses otherwise."""


def masked(line: str) -> str:
    """`line` without its figures, times, ids and verdicts, and with one space between its words."""
    line = VERDICT.sub("?", NUMBER.sub("#", RULE.sub("─", line)))
    return " ".join(line.split())


def shape(shown: str) -> list[str]:
    """What a person recognizes a table by: the heads of its columns, and of each row the first word."""
    found: list[str] = []
    lines = [line for line in shown.splitlines() if line.strip(" .")]
    for line, below in zip(lines, [*lines, ""][1:], strict=True):
        words = re.findall(r"[A-Za-z_+]{2,}", masked(line))
        if RULE.match(below):
            found += [word for word in words if word not in CHOSEN]
        elif words and line[0].isalpha():
            found.append(words[0])
    return sorted(set(found))


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def unaccounted(text: str) -> list[str]:
    """The first lines of the fenced blocks of a page that nothing runs or writes."""
    left = transcript.BLOCK.sub("", text)
    return [match[1] for match in re.finditer(r"^```\w*\n(.*?)\n(?:.*\n)*?```$", left, re.MULTILINE)]
