"""Where chunks of prompts end."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from leverplus_core import Image, Prompt, Turn
from leverplus_core.scoring import chunks
from leverplus_core.scoring.chunks import cut


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "SMALLEST", 4)


def _prompt(*shown: str) -> Prompt:
    """A system text, then images; a name in capitals is a text."""
    content = tuple(name if name.isupper() else Image(name) for name in shown)
    return Prompt((Turn("system", ("SYSTEM",)), Turn("user", content)))


def _named(prompts: Sequence[Prompt], rows: list[list[int]]) -> list[str]:
    return [
        " ".join("".join(p.id for p in prompts[i].turns[1].content if isinstance(p, Image)) for i in part)
        for part in rows
    ]


def test_a_chunk_ends_where_the_first_image_changes() -> None:
    prompts = [_prompt(first, second) for second in "pqr" for first in "bac"]
    assert _named(prompts, cut(prompts, range(9), 9)) == ["ap aq ar bp bq", "br cp cq cr"]


def test_a_chunk_that_is_large_enough_waits_for_the_end_of_a_shared_prefix_but_a_quarter_at_most() -> None:
    prompts = [_prompt(first, second) for first, n in (("a", 3), ("b", 12)) for second in "pqrstuvwxyzk"[:n]]
    found = cut(prompts, range(15), 15)
    assert [len(part) for part in found] == [5, 5, 5]
    prompts = [_prompt(first, second) for first in "abc" for second in "pqrs"]
    assert [len(part) for part in cut(prompts, range(12), 12)] == [4, 4, 4]


def test_prompts_without_an_image_are_cut_at_the_size() -> None:
    prompts = [_prompt(f"TEXT {n}") for n in range(9)]
    assert [len(part) for part in cut(prompts, range(9), 9)] == [4, 4, 1]


def test_a_large_call_has_large_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "SHARES", 2)
    monkeypatch.setattr(chunks, "LARGEST", 6)
    prompts = [_prompt(f"i{n:02}") for n in range(20)]
    assert [len(part) for part in cut(prompts, range(10), 10)] == [5, 5]
    assert [len(part) for part in cut(prompts, range(20), 20)] == [6, 6, 6, 2]
    assert [len(part) for part in cut(prompts, range(5), 20)] == [5]  # most of the call is there already


def test_chunks_that_are_there_already_move_no_border_of_the_others() -> None:
    """Whatever a killed run had finished, in whatever order: what is left is computed in the same calls."""
    draw = random.Random(7)
    for _ in range(200):
        names = [(draw.choice("abcdef"), draw.choice("pqrst"), f"{n}") for n in range(draw.randint(1, 60))]
        prompts = [_prompt(*name) for name in names]
        whole = cut(prompts, range(len(prompts)), len(prompts))
        assert sorted(i for part in whole for i in part) == list(range(len(prompts)))
        left = [part for part in whole if draw.random() < 0.5]
        assert cut(prompts, [i for part in left for i in part], len(prompts)) == left


def test_nothing_missing_is_no_chunk() -> None:
    assert cut([], [], 0) == []
