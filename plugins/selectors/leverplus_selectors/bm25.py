"""`bm25`: the demonstrations of the bank whose question shares the rarest words with this one.

Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", Foundations and Trends in Information
Retrieval 3, 2009. The sum over the words t of the question of `idf(t) f / (f + k1 (1 - b + b |d| / mean |d|))`, f how
often the demonstration's question d has t; `idf(t) = log(1 + (N - n + 0.5) / (n + 0.5))` of the n among N that have it,
which Lucene uses, so that a word in most questions counts a little instead of negatively (Kamphuis et al., ECIR 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from leverplus_core import BaselineSelector, EvalSet, Ids, Measure, SelectionCost
from leverplus_selectors.bank import bank_cost, rank_bank


class Bm25Selector(BaselineSelector):
    """The demonstrations of the whole bank whose question ranks first by BM25, the first next to the question."""

    k1: float = Field(1.5, ge=0, le=1000, description="how slowly a repeated word saturates")
    b: float = Field(0.75, ge=0, le=1, description="how much a long question counts less")

    def select(self, eval_set: EvalSet, shots: Sequence[int], measure: Measure) -> Mapping[int, Sequence[Ids]]:
        scores = bm25([d.text for d in eval_set.bank.demonstrations], self.k1, self.b)
        return rank_bank(eval_set, shots, lambda part: scores([q.text for q in eval_set.questions[part]]))

    def cost(self, shots: Sequence[int], pool: int) -> SelectionCost:
        return bank_cost(shots)


def bm25(documents: Sequence[str], k1: float, b: float) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """A function of queries that gives (B, M) scores of the documents.

    Words are runs of two or more letters or digits, in lower case.
    """
    import bm25s

    def words(texts: Sequence[str]) -> list[list[str]]:
        split: list[list[str]] = bm25s.tokenize(list(texts), stopwords=None, return_ids=False, show_progress=False)
        return split

    corpus = words(documents)
    index = bm25s.BM25(k1=k1, b=b, method="lucene")
    if any(corpus):  # the library cannot index a bank without a word
        index.index(corpus, show_progress=False)

    def scores(queries: Sequence[str]) -> NDArray[np.float32]:
        found = np.zeros((len(queries), len(documents)), np.float32)
        for row, query in zip(found, words(queries), strict=True):
            if query and any(corpus):
                row[:] = index.get_scores(query)
        return found

    return scores
