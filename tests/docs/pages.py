"""The pages of the documentation, read as GitHub reads them: links, headings, code spans and blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
RECORDED = ("docs/results/", "docs/design/", "docs/performance.md", "docs/reliability.md", "CHANGELOG.md")
"""What was true when it was written: outputs and decisions with their date."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def is_recorded(page: Path) -> bool:
    return name(page).startswith(RECORDED)


@cache
def tokens(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def inline(page: Path) -> Iterator[Token]:
    """The tokens within paragraphs, cells and headings."""
    for token in tokens(page):
        yield from token.children or ()


def links(page: Path) -> list[str]:
    """Where links and images lead."""
    found = [str(t.attrGet("href") or t.attrGet("src")) for t in inline(page) if t.type in ("link_open", "image")]
    return found


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: list[str] = []
    for opened, text in zip(tokens(page), tokens(page)[1:], strict=False):
        if opened.type == "heading_open":
            plain = "".join(t.content for t in text.children or () if t.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return frozenset(found)


def spans(page: Path) -> list[str]:
    """What stands between backticks in running text."""
    return [" ".join(t.content.split()) for t in inline(page) if t.type == "code_inline"]


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, its line, its language ('' for none), its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{name(self.page)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """All fenced blocks in these languages."""
    return [
        Block(page, token.map[0] + 1, token.info, token.content)
        for page in PAGES
        for token in tokens(page)
        if token.type == "fence" and token.map and token.info in languages
    ]


def calls(text: str) -> Iterator[list[str]]:
    """The words after `leverplus` of each call in a shell's text: comments, pipes and continued lines as a shell has
    them; a transcript's lines that begin with `$ ` alone are calls. `[--from FILE]` is taken as given."""
    text = re.sub(r"\[(-[^\]]*)\]", r"\1", text)
    lines = text.replace("\\\n", " ").splitlines()
    prompted = [line[2:] for line in lines if line.startswith("$ ")]
    for line in prompted or lines:
        if "leverplus" not in line:
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:  # an apostrophe of a sentence
            continue
        command: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("|&;"):
                yield from _call(command)
                command = []
            else:
                command.append(word)


def _call(words: list[str]) -> Iterator[list[str]]:
    """What follows `leverplus` where a command begins with it, variables before it and `srun` aside."""
    while words and (re.fullmatch(r"\w+=.*", words[0]) or words[0] == "srun" or words[0].startswith("--ntasks")):
        words = words[1:]
    if words and Path(words[0]).name == "leverplus":
        yield words[1:]
