"""Training sequences of the demo model, in the layout of `leverplus_core.scoring.prompt`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from leverplus_demo import world
from tools.demo_vlm.geometry import SYSTEM, VISUAL_TOKENS


@dataclass
class Batch:
    """`B` sequences of `T` tokens: ids (B, T), pictures (B, K), 3-D positions (3, B, T), answer targets."""

    ids: Tensor
    pictures: Tensor
    positions: Tensor
    target_at: Tensor  # (B, K + 1): positions of the token before each answer, and before the final end token
    targets: Tensor  # (B, K + 1)
    copyable: Tensor  # (B,): the last answer differs from the default and an earlier item shows it
    default: Tensor  # (B,): the last answer is a fact's default
    perceptual: Tensor  # (B,)


class Sequences:
    """Draws training sequences: prompts of `k - 1` demonstrations and a question, with the answers."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, scenes: list[world.Scene], seed: int) -> None:
        def ids(text: str) -> list[int]:
            return list(tokenizer(text, add_special_tokens=False)["input_ids"])

        self.rng = np.random.default_rng(seed)
        self.scenes = scenes
        self.by_kind: dict[tuple[str, str], list[int]] = {}
        for i, scene in enumerate(scenes):
            self.by_kind.setdefault((scene.shape, scene.color), []).append(i)
        self.head = ids(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")
        self.tail = ids("<|im_end|>\n<|im_start|>assistant\n")
        self.end = ids("<|im_end|>")
        self.image = ids("<|vision_start|>" + "<|image_pad|>" * VISUAL_TOKENS + "<|vision_end|>")
        self.questions = {
            name: [ids(f"Question:{text} Short answer:") for text in topic.phrasings]
            for name, topic in world.TOPICS.items()
        }
        words = {w for t in world.TOPICS.values() for w in t.words} | set(world.SHAPES) | set(world.COLORS)
        self.words = {word: ids(word)[0] for word in words}
        self.defaults = world.default_table()
        longest = max(len(q) for phrasings in self.questions.values() for q in phrasings)
        self.item = len(self.image) + longest + 1
        self.length = {
            k: 8 * math.ceil((len(self.head) + k * self.item + len(self.tail) + 2) / 8) for k in range(1, 10)
        }

    def batch(self, size: int, k: int) -> Batch:
        """`size` sequences of `k` items each, padded to `length[k]` tokens."""
        length = self.length[k]
        ids = np.zeros((size, length), dtype=np.int64)
        positions = np.zeros((3, size, length), dtype=np.int64)
        pictures = np.zeros((size, k), dtype=np.int64)
        at = np.zeros((size, k + 1), dtype=np.int64)
        targets = np.zeros((size, k + 1), dtype=np.int64)
        flags = np.zeros((3, size), dtype=bool)
        for row in range(size):
            sequence = self._sequence(k)
            tokens, n = sequence["ids"], len(sequence["ids"])
            ids[row, :n] = tokens
            positions[:, row, :n] = sequence["positions"]
            pictures[row], at[row], targets[row] = sequence["pictures"], sequence["at"], sequence["targets"]
            flags[:, row] = sequence["flags"]
        t: Callable[[np.ndarray], Tensor] = torch.from_numpy
        return Batch(t(ids), t(pictures), t(positions), t(at), t(targets), t(flags[0]), t(flags[1]), t(flags[2]))

    def _sequence(self, k: int) -> dict[str, Any]:
        rng, names = self.rng, list(world.TOPICS)
        bursty = rng.random() < 0.9

        def some(values: list[str]) -> list[str]:
            return self._some(values, int(rng.integers(1, 4)) if bursty else len(values))

        topics, shapes, colors = some(names), some(list(world.SHAPES)), some(list(world.COLORS))
        keep = rng.uniform(0.25, 0.5)
        table: world.Table = {}
        tokens, pictures, at, targets = list(self.head), [], [], []
        starts: list[int] = []
        seen: set[tuple[str, str]] = set()
        flags = (False, False, False)
        for item in range(k):
            name = topics[rng.integers(len(topics))]
            kind = (shapes[rng.integers(len(shapes))], colors[rng.integers(len(colors))])
            picture = self.by_kind[kind][rng.integers(len(self.by_kind[kind]))]
            topic = world.TOPICS[name]
            value = self.scenes[picture].value(topic.key)
            cell = (name, value)
            if topic.perceptual:
                word = value
            else:
                if cell not in table:
                    kept = rng.random() < keep
                    table[cell] = self.defaults[cell] if kept else topic.words[rng.integers(len(topic.words))]
                word = table[cell]
                is_default = word == self.defaults[cell]
            if item == k - 1:
                flags = (
                    not topic.perceptual and cell in seen and not is_default,
                    not topic.perceptual and cell not in seen and is_default,
                    topic.perceptual,
                )
            seen.add(cell)
            starts.append(len(tokens) + 1)
            tokens += self.image
            phrasings = self.questions[name]
            tokens += phrasings[rng.integers(len(phrasings))]
            if item == k - 1:
                tokens += self.tail
            at.append(len(tokens) - 1)
            tokens.append(self.words[word])
            targets.append(self.words[word])
            pictures.append(picture)
        at.append(len(tokens) - 1)
        targets.append(self.end[0])
        return {
            "ids": tokens, "positions": mrope_positions(len(tokens), starts), "pictures": pictures,
            "at": at, "targets": targets, "flags": flags,
        }  # fmt: skip

    def _some(self, values: list[str], n: int) -> list[str]:
        return [values[i] for i in self.rng.permutation(len(values))[:n]]


def mrope_positions(length: int, image_starts: list[int]) -> np.ndarray:
    """Qwen2.5-VL's 3-D positions (3, length) for 2 x 2 visual tokens at `image_starts` (equal to `get_rope_index`)."""
    positions = np.zeros((3, length), dtype=np.int64)
    cursor, here = 0, 0
    for start in image_starts:
        positions[:, cursor:start] = here + np.arange(start - cursor)
        here += start - cursor
        positions[0, start : start + 4] = here
        positions[1, start : start + 4] = here + np.array([0, 0, 1, 1])
        positions[2, start : start + 4] = here + np.array([0, 1, 0, 1])
        here, cursor = here + 2, start + 4
    positions[:, cursor:] = here + np.arange(length - cursor)
    return positions
