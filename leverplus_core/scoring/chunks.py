"""How prompts are cut into chunks: each is one call of the model, which computes a common prefix once.

Batches decide the last bits of a result, so where chunks end must not depend on the speed of the machine, on who
computes them, or on what a killed run had finished: it depends on the prompts that were asked, and a chunk that is
there already moves no border of the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from leverplus_core.records import Image, Prompt

SMALLEST, LARGEST = 128, 1024
"""Prompts of a chunk: enough for full batches, few enough to lose when a process is killed."""
SHARES = 128
"""Into so many chunks a call is cut where their size allows it, so that many workers end at about the same time."""


def cut(prompts: Sequence[Prompt], missing: Sequence[int], asked: int) -> list[list[int]]:
    """The rows `missing` of `prompts` as chunks in reading order; `asked` distinct prompts are asked in this call.

    Prompts with a common prefix stand side by side. A chunk ends, once it is large enough, before the next prompt that
    begins with another image than the one before it, or a quarter later.
    """
    if not missing:
        return []
    size = min(max(asked // SHARES, SMALLEST), LARGEST)
    order = sorted((_reading_order(prompts[i]), i) for i in missing)
    chunks: list[list[int]] = [[]]
    for _, i in order:
        there = len(chunks[-1])
        if there >= size and (there >= size + size // 4 or _start(prompts[chunks[-1][-1]]) != _start(prompts[i])):
            chunks.append([])
        chunks[-1].append(i)
    return chunks


def _reading_order(prompt: Prompt) -> tuple[str, ...]:
    """What the prompt shows, in reading order."""
    return tuple(part if isinstance(part, str) else part.id for turn in prompt.turns for part in turn.content)


def _start(prompt: Prompt) -> tuple[str, ...]:
    """What is shown up to and with the first image; all of a prompt without one."""
    parts = [part for turn in prompt.turns for part in turn.content]
    return _reading_order(prompt)[: next((n for n, part in enumerate(parts, 1) if isinstance(part, Image)), len(parts))]
