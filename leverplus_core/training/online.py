"""The on-policy loop: propose with the current policy, measure, train, and repeat.

A candidate that SFT's policy proposed says little about a policy that has since changed; GRPO's estimate of the
gradient is for what the policy itself would choose. Each round's candidates therefore come from the policy of the
round before (Shao et al. 2024, DeepSeekMath, algorithm 1, with the rounds as its outer loop). Samples are drawn with
replacement: a sequence drawn twice is measured once and counts twice in the group, since a mean over a group of draws
estimates an expectation under the policy, and one over distinct sequences does not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from leverplus_core.candidates.store import CANDIDATES, Groups, write_groups
from leverplus_core.io import write_json
from leverplus_core.plugins.contracts import Reward
from leverplus_core.recipes.settings import CandidateSettings, OnlineSettings, Order
from leverplus_core.records import Candidate, Question
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.seeding import derive
from leverplus_core.selector.policy import Policy
from leverplus_core.selector.propose import distinct, propose
from leverplus_core.selector.ranking import Positions
from leverplus_core.training.base import CurveRow, FitRun, Judge, OnEpoch, Trainer
from leverplus_core.training.data import TrainingContext, epochs_meta, fit_candidates, save_trained


def learn_online(
    out: Path,
    context: TrainingContext,
    questions: Mapping[str, Question],
    measured: Groups,
    start: Path | None,
    scorer: Scorer,
    reward: Reward,
    settings: OnlineSettings,
    trainer: Trainer,
    judge: Judge | None,
    ids: Sequence[str],
    on_epoch: OnEpoch,
) -> dict[str, Any]:
    """Continue from the policy in `start`; `measured` are the candidates known so far, which cost nothing more.

    `judge` chooses the epoch of every round, among those of the round and the policy before it; `ids` are all questions
    that it and the candidates are about.

    A prompt counts against the budget whether or not the response cache knew its answer, so that a resumed run ends as
    an uninterrupted one. Where the budget does not reach all, every question has its first new proposal measured before
    any has its second. Writes all candidates measured, the curve and the policy of the last round.
    """
    policy = context.init_policy(start, ids)
    known = {q: {c.demonstrations: c for c in group} for q, group in measured.items()}
    spent = 0
    curve: list[CurveRow] = []
    rounds: list[dict[str, int]] = []
    for number in range(1, settings.rounds + 1):
        left = None if settings.budget is None else settings.budget - spent
        proposed = _proposals(policy, context, list(measured), settings.candidates, number, scorer.prompt.order)
        prompts = {q: scorer.prompts(questions[q]) for q in proposed}
        new = _affordable(proposed, known, prompts, left)
        rows = [(questions[q], sequence, source) for q, sequence, source in new]
        for candidate in scorer.candidates(rows):
            known[candidate.question_id][candidate.demonstrations] = candidate
        spent += sum(prompts[q] for q, _, _ in new)
        groups = _groups(proposed, known, settings.replay)
        one_round = trainer.model_copy(update={"epochs": settings.epochs})
        run = FitRun(f"online round {number}", context.seed, judge, None, context.progress)
        result = fit_candidates(policy, context, groups, reward, one_round, run)
        for epoch, metrics in _numbered(result.curve, len(curve)):
            curve.append((epoch, metrics))
            on_epoch(epoch, metrics)
        rounds.append({"round": number, "new_candidates": len(new), **epochs_meta(result)})
        if settings.budget is not None and spent >= settings.budget:
            break
    write_groups(out / CANDIDATES, {q: list(found.values()) for q, found in known.items()})
    metadata: dict[str, Any] = {"prompts": spent, "rounds": rounds}
    write_json(out / "online.json", metadata)
    save_trained(out, policy, curve, {**metadata, **context.questions_meta(ids)})
    return metadata


def _proposals(
    policy: Policy, context: TrainingContext, ids: Sequence[str], settings: CandidateSettings, number: int, order: Order
) -> dict[str, list[tuple[tuple[str, ...], str]]]:
    found: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for start in range(0, len(ids), 256):
        part = ids[start : start + 256]
        rows: list[list[tuple[Positions, str]]] = propose(
            policy, context.features.batch(part), part, settings, derive(context.seed, "online", number), order,
            repeats=True,
        )  # fmt: skip
        for question_id, sequences in zip(part, rows, strict=True):
            pool = context.features.pool_ids[question_id]
            found[question_id] = [
                (tuple(pool[p] for p in positions), f"online{number}:{source}") for positions, source in sequences
            ]
    return found


def _affordable(
    proposed: Mapping[str, Sequence[tuple[tuple[str, ...], str]]],
    known: Mapping[str, Mapping[tuple[str, ...], Candidate]],
    prompts: Mapping[str, int],
    budget: int | None,
) -> list[tuple[str, tuple[str, ...], str]]:
    """What is new, once each; one proposal of every question before the second of any, as many as the budget affords.

    `prompts` is what a candidate of each question costs.
    """
    new = {q: distinct((s, source) for s, source in rows if s not in known[q]) for q, rows in proposed.items()}
    deepest = max(map(len, new.values()), default=0)
    in_turn = [(q, *rows[turn]) for turn in range(deepest) for q, rows in new.items() if turn < len(rows)]
    if budget is None:
        return in_turn
    spent = list(accumulate(prompts[q] for q, _, _ in in_turn))
    return in_turn[: bisect_right(spent, budget)]


def _groups(
    proposed: Mapping[str, Sequence[tuple[tuple[str, ...], str]]],
    known: Mapping[str, Mapping[tuple[str, ...], Candidate]],
    replay: bool,
) -> dict[str, list[Candidate]]:
    if replay:
        return {q: list(found.values()) for q, found in known.items()}
    rows = {q: [known[q][s] for s, _ in sequences if s in known[q]] for q, sequences in proposed.items()}
    return {q: group for q, group in rows.items() if group}


def _numbered(curve: Sequence[CurveRow], after: int) -> list[CurveRow]:
    return [(after + i, values) for i, (_, values) in enumerate(curve)]
