"""`two_tower`: a retriever over the whole bank, learned from what the model makes of single demonstrations.

Towers of the question and of the demonstration with its answer, trained listwise on measured demonstrations (EPR: Rubin
et al., NAACL 2022, arXiv:2112.08633; MSIER: Luo et al., EMNLP 2024, arXiv:2404.12866; DRUM: Yi-Ge et al., ACL SRW 2025,
arXiv:2412.07619). Unlike in DRUM the lists are not mined again with what was learned; docs/design/016 says why. The
network is in `two_tower_network`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from leverplus_core import BaselineSelector, EvalSet, Ids, Measure, Question, SelectionCost, Temperature, rng
from leverplus_selectors.bank import bank_cost, rank_bank

if TYPE_CHECKING:
    from leverplus_selectors.two_tower_network import Towers


class TwoTowerSelector(BaselineSelector):
    """The best of the whole bank by a similarity learned on train questions, the best next to the question.

    Each of some train questions has a list: the demonstrations of the bank that are nearest by text and image, and a
    share drawn by chance. The model says how much each of them, alone, raises the probability of the true answer
    (InfoScore), and the towers learn to rank the lists as it does.
    """

    learns: ClassVar[bool] = True

    questions: int = Field(300, ge=0, description="train questions whose lists are measured; 0: text and image alone")
    k: int = Field(32, ge=2, description="demonstrations in a list")
    chance: float = Field(0.25, ge=0, le=1, description="share of a list that is drawn by chance")
    rank: int = Field(16, ge=1, description="of what the towers learn to add to the features")
    epochs: int = Field(30, ge=1, description="passes over the lists")
    learning_rate: float = Field(3e-3, gt=0, le=10)
    temperature: Temperature = Field(0.1, description="of the scores, and of the InfoScores that they are to follow")

    def blocks(self) -> frozenset[str]:
        return frozenset({"image", "text"})

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        towers = self.learn(eval_set, measure)
        features = eval_set.features
        return rank_bank(eval_set, shots, lambda part: towers.scores(features.image[part], features.text[part]))

    def cost(self, shots: Sequence[int], pool: int) -> SelectionCost:
        once = {0: self.questions, 1: self.questions * self.k} if self.questions else {}
        return replace(bank_cost(shots), once_logprobs=once)

    def learn(self, eval_set: EvalSet, measure: Measure) -> Towers:
        """Towers that have learned from the first train questions that the bank has features of."""
        from leverplus_selectors.two_tower_network import Lists, Towers

        bank = eval_set.bank
        at = {(d.image.id, d.text): row for row, d in enumerate(bank.demonstrations)}
        taught = [q for q in eval_set.train if (q.image.id, q.text) in at][: self.questions]
        rows = np.array([at[q.image.id, q.text] for q in taught], dtype=np.intp)
        towers = Towers(self, bank.features, eval_set.seed)
        if taught:
            listed = self.lists(eval_set, towers, taught, rows)
            towers.fit(Lists(rows, listed, self.worth(eval_set, taught, listed, measure)), bank.image_ids)
        return towers

    def lists(
        self, eval_set: EvalSet, towers: Towers, questions: Sequence[Question], rows: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """(Q, k) rows of the bank for each question, whose own are `rows`; fewer where the bank has no more."""
        features, images = eval_set.bank.features, eval_set.bank.image_ids
        owns = [images == question.image.id for question in questions]
        k = min(self.k, len(images) - max(int(own.sum()) for own in owns))
        best = k - math.floor(self.chance * k)
        scores = towers.scores(features.image[rows], features.text[rows])
        listed = np.empty((len(questions), k), np.intp)
        for i, (question, own) in enumerate(zip(questions, owns, strict=True)):
            ranked = np.argsort(np.where(own, np.inf, -scores[i]), kind="stable")[: len(images) - own.sum()]
            drawn = rng(eval_set.seed, "two tower list", question.id).permutation(ranked[best:])
            listed[i] = np.concatenate([ranked[:best], drawn[: k - best]])
        return listed

    def worth(
        self, eval_set: EvalSet, questions: Sequence[Question], listed: NDArray[np.intp], measure: Measure
    ) -> NDArray[np.float64]:
        """(Q, k) InfoScores of the demonstrations alone."""
        bank = eval_set.bank.demonstrations
        bare = measure.logprobs([(q, ()) for q in questions], "retriever: no demonstrations")
        alone = [(q, (bank[row].id,)) for q, of in zip(questions, listed, strict=True) for row in of]
        found = measure.logprobs(alone, "retriever: one demonstration")
        zero = np.exp([logprob.mean for logprob in bare])[:, None]
        return np.exp([logprob.mean for logprob in found]).reshape(listed.shape) - zero
