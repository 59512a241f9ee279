"""Beam search of one prompt, in steps: the rules of transformers' `generate` with its default `early_stopping=False`.

A beam search over several prompts at once differs in transformers only in what finished prompts are padded with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leverplus_core import Floats
from leverplus_models.engine.rows import Ints

Beam = tuple[float, tuple[int, ...]]
"""Score, and the tokens so far."""


class Greedy:
    """The likeliest token, until an end token or `max_new_tokens`; used as a `Beams` of one beam is."""

    def __init__(self, max_new_tokens: int, eos: Sequence[int]) -> None:
        self.max_new_tokens, self.eos = max_new_tokens, frozenset(eos)
        self.text: list[int] = []
        self.done = False

    @property
    def last_tokens(self) -> list[int]:
        """The token with which the text continues."""
        return self.text[-1:]

    def advance(self, logprobs: Floats, tokens: Ints) -> list[int]:
        """Take the first of tokens (1, K), the likeliest; returns that the only beam is continued."""
        self.text.append(int(tokens[0, 0]))
        self.done = self.text[-1] in self.eos or len(self.text) == self.max_new_tokens
        return [0]


class Beams:
    """`running` are the beams to be continued, best first; `done` says that the best finished one stands."""

    def __init__(self, num_beams: int, length_penalty: float, max_new_tokens: int, eos: Sequence[int]) -> None:
        self.num_beams, self.length_penalty, self.max_new_tokens = num_beams, length_penalty, max_new_tokens
        self.eos = frozenset(eos)
        self.running: list[Beam] = [(0.0, ())]  # sums of log-probabilities
        self.finished: list[Beam] = []  # sums divided by length ** length_penalty
        self.done = False

    @staticmethod
    def continuations(num_beams: int, eos: Sequence[int]) -> int:
        """Tokens to be considered for each beam: enough that `num_beams` remain when every end token is among them."""
        return max(2, 1 + len(eos)) * num_beams

    def advance(self, logprobs: Floats, tokens: Ints) -> list[int]:
        """Take a step; returns the number of the beam that each new running one continues.

        logprobs and tokens (beams, K) are the K likeliest continuations of each running beam, float32.
        """
        scores = np.array([score for score, _ in self.running], dtype=np.float32)[:, None] + logprobs
        best = np.argsort(-scores.ravel(), kind="stable")[: self.continuations(self.num_beams, sorted(self.eos))]
        length = len(self.running[0][1]) + 1
        found = []
        for place in best.tolist():
            beam, column = divmod(place, scores.shape[1])
            token = int(tokens[beam, column])
            ends = token in self.eos or length == self.max_new_tokens
            found.append((float(scores[beam, column]), (*self.running[beam][1], token), beam, ends))
        ended = [
            (score / length**self.length_penalty, text) for score, text, _, ends in found[: self.num_beams] if ends
        ]
        self.finished = sorted([*self.finished, *ended], key=lambda beam: -beam[0])[: self.num_beams]
        alive = [(score, text, beam) for score, text, beam, ends in found if not ends][: self.num_beams]
        self.running = [(score, text) for score, text, _ in alive]
        full = len(self.finished) == self.num_beams
        self.done = not alive or (full and alive[0][0] / length**self.length_penalty <= self.finished[-1][0])
        return [beam for _, _, beam in alive]

    @property
    def last_tokens(self) -> list[int]:
        """The last token of each running beam."""
        return [text[-1] for _, text in self.running]

    @property
    def text(self) -> list[int]:
        """The tokens of the best finished beam."""
        return list(self.finished[0][1])
