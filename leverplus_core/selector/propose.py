"""RL candidates: which demonstration sequences from a question's pool the model measures.

As in the Lever-Plus report: the SFT selector's beams, its samples at two temperatures, retrieval by similarity and
one random sequence, without duplicates, for each number of shots.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

import torch

from leverplus_core.recipes.settings import CandidateSettings, Order
from leverplus_core.seeding import derive, rng
from leverplus_core.selector.policy import Batch, Policy
from leverplus_core.selector.ranking import Positions, beside_question

T = TypeVar("T", bound=Hashable)


@torch.no_grad()
def propose(
    policy: Policy,
    batch: Batch,
    question_ids: Sequence[str],
    settings: CandidateSettings,
    seed: int,
    order: Order = "append",
    repeats: bool = False,
) -> list[list[tuple[Positions, str]]]:
    """For each question of the batch, (positions in its pool, source), in a fixed order.

    A sequence comes once, with its first source, or with `repeats` as often as it was proposed. `order` is the
    prompt's: runs of the most similar have the nearest next to the question.
    """
    policy.eval()
    proposed: list[list[tuple[Positions, str]]] = [[] for _ in question_ids]
    similarity = batch.similarity.sum(-1)  # (B, K)
    sizes = [batch.pool_size] * len(question_ids)
    if batch.pool_mask is not None:
        similarity = similarity.masked_fill(~batch.pool_mask, -torch.inf)  # padding, at the end of a pool, ranks last
        sizes = batch.pool_mask.sum(1).tolist()
    for shots in settings.shots:
        if shots == 0:
            _add(proposed, [[()]] * len(question_ids), "none")
            continue
        if settings.num_beams:
            positions, log_probs = policy.beam_search(batch, shots, settings.num_beams)
            for row, possible in enumerate(log_probs.isfinite()):
                _add(proposed[row : row + 1], [positions[row][possible].tolist()], "beam")
        for temperature, count in settings.samples.items():
            seeds = (derive(seed, "sample", question_id, shots, str(temperature)) for question_id in question_ids)
            generators = [torch.Generator().manual_seed(number) for number in seeds]
            drawn = policy.sample(batch, shots, count, temperature, generators)
            _add(proposed, drawn.tolist(), f"sample@{temperature:g}")
        ranked = similarity.argsort(dim=1, descending=True, stable=True).tolist()
        for row, question_id in enumerate(question_ids):
            pool = sizes[row]
            starts = range(min(settings.retrieval, pool - shots + 1))
            windows = [beside_question(ranked[row][i : i + shots], order) for i in starts]
            _add(proposed[row : row + 1], [windows], "retrieval")
            chance = rng(seed, "random", question_id, shots)
            draws = [chance.permutation(pool)[:shots].tolist() for _ in range(settings.random)]
            _add(proposed[row : row + 1], [draws], "random")
    return proposed if repeats else [distinct(found) for found in proposed]


def distinct(proposed: Iterable[tuple[T, str]]) -> list[tuple[T, str]]:
    """Each sequence once, with its first source."""
    first: dict[T, str] = {}
    for sequence, source in proposed:
        first.setdefault(sequence, source)
    return list(first.items())


def _add(
    proposed: list[list[tuple[Positions, str]]], positions: Sequence[Sequence[Sequence[int]]], source: str
) -> None:
    for found, sequences in zip(proposed, positions, strict=True):
        found += [(tuple(int(p) for p in sequence), source) for sequence in sequences]
