"""The network of `two_tower` and its training. Letters at line ends: B questions, M bank, K list, R chance, D width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from leverplus_core import Features, Floats, derive, one_thread, rng
from leverplus_selectors.two_tower import TwoTowerSelector

BATCH = 32
CHANCE = 32
"""Rows of the bank that join each list of a step as worth nothing."""
ANSWER_WIDTH, DROPOUT = 32, 0.4


@dataclass(frozen=True)
class Lists:
    """What was measured: for each train question its row of the bank (B,), the rows of its list (B, K), and their
    InfoScores (B, K)."""

    questions: NDArray[np.intp]
    rows: NDArray[np.intp]
    worth: NDArray[np.float64]

    def and_those_of(self, other: Lists) -> Lists:
        """Both, one behind the other."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in ("questions", "rows", "worth")]
        return Lists(*(np.concatenate(pair) for pair in pairs))


class Towers(nn.Module):
    """A question's tower times that of a demonstration: s_i cos(i', j') + s_t cos(t', u') + v(u, answer).

    i and j are the images, t and u the texts of both, each less the bank's mean: encoders of small models give cosines
    that differ in the third digit only. x' = x + U D x, of low rank and U zero at first, so that the towers begin as
    the similarity of text and image; with some hundred questions, towers from nothing memorize. v is what a
    demonstration is worth to any question, a small network.
    """

    def __init__(self, settings: TwoTowerSelector, bank: Features, seed: int) -> None:
        super().__init__()
        self.settings, self.seed = settings, seed
        self.means = {"image": bank.image.mean(0), "text": bank.text.mean(0)}
        answer = np.zeros((len(bank.text), 0), np.float32) if bank.answer is None else bank.answer
        with torch.random.fork_rng([]):
            torch.manual_seed(derive(seed, "two tower"))
            self.down, self.up = nn.ModuleDict(), nn.ModuleDict()
            for block, mean in self.means.items():
                self.down[block] = nn.Linear(len(mean), settings.rank, bias=False)
                self.up[block] = nn.Linear(settings.rank, len(mean), bias=False)
            for weight in self.up.parameters():
                nn.init.zeros_(weight)
            self.scale = nn.Parameter(torch.zeros(2))
            last = nn.Linear(ANSWER_WIDTH, 1)
            said = nn.Linear(bank.text.shape[1] + answer.shape[1], ANSWER_WIDTH)
            self.worth = nn.Sequential(said, nn.GELU(), nn.Dropout(DROPOUT), last)
        for weight in last.parameters():
            nn.init.zeros_(weight)
        self.bank = self._blocks(bank.image, bank.text)
        self.said = torch.cat([self.bank[1], F.normalize(torch.from_numpy(answer), dim=-1)], -1)
        self.eval()

    def fit(self, lists: Lists, images: NDArray[np.str_]) -> None:
        """Learn from lists: cross-entropy between softmax(InfoScore / temperature) and softmax(score / temperature).

        Each list is joined by rows of the bank drawn by chance, as worth nothing: what was not measured must not rank
        before what helps. `images` are those that the bank's demonstrations show.
        """
        settings = self.settings
        optimizer = torch.optim.AdamW(self.parameters(), lr=settings.learning_rate, weight_decay=1e-2)
        draw, count = rng(self.seed, "two tower lists"), len(lists.questions)
        self.train()
        with one_thread(), torch.random.fork_rng([]):
            torch.manual_seed(derive(self.seed, "two tower dropout"))
            for _ in range(settings.epochs):
                for part in np.array_split(draw.permutation(count), max(1, round(count / BATCH))):
                    asked, chance = lists.questions[part], draw.choice(len(images), CHANCE)
                    rows = np.concatenate([lists.rows[part], np.broadcast_to(chance, (len(part), CHANCE))], 1)
                    own = torch.from_numpy(images[rows] == images[asked][:, None])  # (B, K + R)
                    worth = torch.from_numpy(np.pad(lists.worth[part], ((0, 0), (0, CHANCE)))).float()
                    used, place = np.unique(rows, return_inverse=True)
                    shown = self.demonstrations(used)[torch.from_numpy(place.reshape(rows.shape))]  # (B, K + R, D)
                    queries = self.questions([block[torch.from_numpy(asked)] for block in self.bank])  # (B, D)
                    scores = (shown @ queries[..., None]).squeeze(-1) / settings.temperature
                    target = (worth / settings.temperature).masked_fill(own, -torch.inf).softmax(-1)
                    guess = scores.masked_fill(own, -torch.inf).log_softmax(-1).masked_fill(own, 0.0)
                    optimizer.zero_grad()
                    (-(target * guess).sum(-1).mean()).backward()
                    optimizer.step()
        self.eval()

    @torch.no_grad()
    def scores(self, image: Floats, text: Floats) -> NDArray[np.float64]:
        """(B, M) of questions with these features and every demonstration; to six places, as of `bank_knn`."""
        with one_thread():
            queries = self.questions(self._blocks(image, text)).double()
            found: NDArray[np.float64] = (queries @ self.demonstrations().double().T).numpy().round(6)
        return found

    def questions(self, blocks: list[Tensor]) -> Tensor:
        """(B, D) of rows of image and text."""
        both = self._moved(blocks)
        return torch.cat([*both, torch.ones(len(blocks[0]), 1)], -1)

    def demonstrations(self, rows: NDArray[np.intp] | None = None) -> Tensor:
        """(M, D) of the bank, or of some rows."""
        at = slice(None) if rows is None else torch.from_numpy(rows)
        both = zip(self.scale.exp(), self._moved([block[at] for block in self.bank]), strict=True)
        return torch.cat([*(weight * moved for weight, moved in both), self.worth(self.said[at])], -1)

    def _moved(self, blocks: list[Tensor]) -> list[Tensor]:
        names = zip(self.means, blocks, strict=True)
        return [F.normalize(rows + self.up[name](self.down[name](rows)), dim=-1) for name, rows in names]

    def _blocks(self, image: Floats, text: Floats) -> list[Tensor]:
        named = zip(self.means.values(), (image, text), strict=True)
        return [F.normalize(torch.from_numpy(rows - mean), dim=-1) for mean, rows in named]
