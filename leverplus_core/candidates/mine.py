"""Mining: more positives for questions with few, by measuring more demonstration sequences from their pools.

Rounds of propose and measure. Two proposers: one draws over the whole range of similarity (what the selector, which
prefers the similar, left out), one takes a single step from the best known ones. What is proposed depends on
(seed, question id, round) and on the measurements alone, so that a resumed run proposes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

import numpy as np

from leverplus_core.candidates.store import Groups, rank_key
from leverplus_core.errors import DataError
from leverplus_core.progress import Progress
from leverplus_core.recipes.settings import MiningSettings
from leverplus_core.records import Candidate, Ids, Question
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.seeding import rng

STRATIFIED, SWAP = "mine:stratified", "mine:swap"
_TRIES = 20
"""Draws per sequence, before the rest is taken in order of similarity."""


@dataclass(frozen=True)
class Mined:
    """The new candidates, in the order in which they were measured, and what they cost and brought."""

    candidates: list[Candidate]
    metadata: dict[str, Any]


def stratified(
    ranked: Sequence[str],
    lengths: Sequence[int],
    known: AbstractSet[Ids],
    count: int,
    strata: int,
    chance: np.random.Generator,
) -> list[Ids]:
    """Up to `count` new sequences over the whole range of similarity; fewer only where there are no more.

    `ranked` is the pool, the most similar first. All positions are drawn from one stratum, or each from another, in
    turn; so are the lengths. Where drawing finds nothing new, sequences come in order of similarity.
    """
    lengths = [n for n in lengths if n <= len(ranked)]
    if not lengths:
        return []
    cuts = np.array_split(np.arange(len(ranked)), min(strata, len(ranked)))
    order = chance.permutation(len(cuts))
    found: dict[Ids, None] = {}
    for turn in range(_TRIES * count):
        if len(found) == count:
            break
        plan, which = divmod(turn, len(lengths))
        n = lengths[which]
        within = plan % 2 == 0
        chosen = np.full(n, order[plan // 2 % len(cuts)]) if within else np.resize(chance.permutation(len(cuts)), n)
        drawn: list[int] = []
        for stratum in chosen:
            free = np.setdiff1d(cuts[stratum], drawn)
            drawn.append(int(chance.choice(free if len(free) else np.setdiff1d(np.arange(len(ranked)), drawn))))
        sequence = tuple(ranked[i] for i in drawn)
        if sequence not in known:
            found[sequence] = None
    for n in lengths:
        for sequence in permutations(ranked, n):
            if len(found) == count:
                break
            if sequence not in known:
                found.setdefault(sequence)
    return list(found)


def one_swaps(
    num_seeds: Sequence[Ids], pool: Sequence[str], known: AbstractSet[Ids], count: int, chance: np.random.Generator
) -> list[Ids]:
    """Up to `count` new sequences that differ from one of `num_seeds` in one demonstration, or in the order of two.

    Seeds take turns in their order; the neighbors of a seed are drawn uniformly.
    """
    queues = []
    for start in num_seeds:
        free = [n for n in _neighbors(start, pool) if n not in known]
        queues.append([free[i] for i in chance.permutation(len(free))])
    found: dict[Ids, None] = {}
    while any(queues) and len(found) < count:
        for queue in queues:
            if queue and len(found) < count:
                found.setdefault(queue.pop())
    return list(found)


def _neighbors(start: Ids, pool: Sequence[str]) -> Iterator[Ids]:
    for i in range(len(start)):
        for new in pool:
            if new not in start:
                yield (*start[:i], new, *start[i + 1 :])
    for i, j in combinations(range(len(start)), 2):
        yield (*start[:i], start[j], *start[i + 1 : j], start[i], *start[j + 1 :])


def propose(
    group: Sequence[Candidate], ranked: Sequence[str], count: int, settings: MiningSettings, chance: np.random.Generator
) -> list[tuple[Ids, str]]:
    """(sequence, source) of up to `count` sequences that `group` does not hold; `ranked`: the pool, nearest first.

    One-swaps start from the best positives, or from the nearest misses where there is none. What one proposer cannot
    give, the other does, unless its share is 0.
    """
    known = {c.demonstrations for c in group}
    lengths = settings.shots or sorted({len(ids) for ids in known if ids})
    proposed: dict[Ids, str] = {}
    if settings.swap:
        usable = sorted((c for c in group if len(c.demonstrations) in lengths), key=rank_key)
        best = [c.demonstrations for c in usable if c.correct] or [c.demonstrations for c in usable]
        found = one_swaps(best[: settings.num_seeds], ranked, known, int(count * settings.swap + 0.5), chance)
        proposed.update(dict.fromkeys(found, SWAP))
    if settings.swap < 1:
        others = stratified(ranked, lengths, known | proposed.keys(), count - len(proposed), settings.strata, chance)
        proposed.update(dict.fromkeys(others, STRATIFIED))
    return list(proposed.items())


def mine(
    scorer: Scorer,
    questions: Sequence[Question],
    groups: Groups,
    pools: Mapping[str, Sequence[str]],
    similarity: Callable[[str], np.ndarray],
    settings: MiningSettings,
    seed: int,
    progress: Progress,
) -> Mined:
    """Propose and measure, in rounds, for the `questions` with fewer than `settings.min_positives` positives.

    Ends when all have enough, when the budget is spent, when nothing new can be proposed, or after the last round.
    `similarity` gives a question's similarity to each of its pool (K,). Raises DataError for a group with a
    demonstration that is not in the question's pool.
    """
    known = {q.id: list(groups.get(q.id, ())) for q in questions}
    positives = {q: sum(c.correct for c in group) for q, group in known.items()}
    before = dict(positives)
    rows = {q.id: q for q in questions if positives[q.id] < settings.min_positives}
    ranked = {q: _ranked(q, known[q], pools, similarity) for q in rows}
    mined: list[Candidate] = []
    proposed: list[tuple[Question, Ids, str]] = []
    prompts, rounds, short, touched = 0, 0, False, set[str]()

    def wanting() -> list[str]:
        return sorted((q for q in rows if positives[q] < settings.min_positives), key=lambda q: (positives[q], q))

    while rounds < settings.rounds and (wanted := wanting()):
        proposed, short = [], False
        for q in wanted:
            first = 0 if q in touched else scorer.reference_prompts(rows[q])  # without demonstrations
            count = settings.candidates_per_round
            if settings.budget is not None:
                count = min(count, (settings.budget - prompts - first) // scorer.prompts(rows[q]))
            short = count < 1
            if short:
                break
            found = propose(known[q], ranked[q], count, settings, rng(seed, "mine", q, rounds))
            proposed += [(rows[q], ids, source) for ids, source in found]
            if found:
                prompts += first + scorer.prompts(rows[q]) * len(found)
                touched.add(q)
        if not proposed:
            break
        measured = scorer.candidates(proposed)
        mined += measured
        for candidate in measured:
            known[candidate.question_id].append(candidate)
            positives[candidate.question_id] += candidate.correct
        rounds += 1
        gained = sum(c.correct for c in measured)
        progress.say(f"mine, round {rounds}: {len(measured):,} candidates, {gained:,} of them positive")
    stopped = "min_positives" if not wanting() else "budget" if short else "rounds" if proposed else "exhausted"
    each = {q: scorer.prompts(question) for q, question in rows.items()}
    return Mined(mined, _metadata(mined, before, positives, each, settings, prompts, rounds, stopped))


def _ranked(
    question_id: str,
    group: Sequence[Candidate],
    pools: Mapping[str, Sequence[str]],
    similarity: Callable[[str], np.ndarray],
) -> list[str]:
    """The question's pool, the most similar first; ties in the order of the pool."""
    pool = pools.get(question_id, ())
    foreign = [d for c in group for d in c.demonstrations if d not in pool]
    if foreign or not pool:
        what = f"demonstration {foreign[0]} is not in its pool" if foreign else "it has no pool"
        raise DataError(f"question {question_id}: {what}.", "Pools and candidates are from different runs.")
    return [pool[i] for i in np.argsort(-similarity(question_id), kind="stable")]


def _metadata(
    mined: Sequence[Candidate],
    before: Mapping[str, int],
    after: Mapping[str, int],
    each: Mapping[str, int],
    settings: MiningSettings,
    prompts: int,
    rounds: int,
    stopped: str,
) -> dict[str, Any]:
    """What mining did for the questions of `each`: question id -> prompts that one of its candidates costs."""
    by_proposer = {}
    for source in (SWAP, STRATIFIED):
        found = [c for c in mined if c.source == source]
        right = sum(c.correct for c in found)
        by_proposer[source] = {
            "candidates": len(found),
            "positives": right,
            "positives_per_prompt": right / max(sum(each[c.question_id] for c in found), 1),
        }
    gained = sum(c.correct for c in mined)
    return {
        "questions": len(each),
        "helped": sum(after[q] > before[q] for q in each),
        "have_enough": sum(after[q] >= settings.min_positives for q in each),
        "first_positive": sum(after[q] > before[q] == 0 for q in each),
        "candidates": len(mined),
        "positives": gained,
        "prompts": prompts,
        "positives_per_prompt": gained / max(prompts, 1),
        "rounds": rounds,
        "stopped": stopped,
        "by_proposer": by_proposer,
    }
