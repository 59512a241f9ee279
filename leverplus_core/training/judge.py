"""What chooses the epoch: values of a policy on the validation questions, the same for every trainer.

By answers: the policy chooses demonstrations for each question as in the evaluation, and the model answers; a choice
that was asked before comes from the response cache. By candidates: the accuracy of the measured candidates, expected
under the policy, which asks nothing. By sequences: the log-probability of what the beam search kept, where neither can
be had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from leverplus_core.candidates.store import Groups
from leverplus_core.records import Ids, Question, ScoredSequence
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.selector.policy import Policy
from leverplus_core.training.base import CandidateTrainer, Judge, Trainer
from leverplus_core.training.data import TrainingContext, groups_for, training_data
from leverplus_core.training.trainer import candidate_log_probs, expected_reward, one_thread

ACCURACY = "accuracy"
BATCH = 256


def by_answers(
    context: TrainingContext,
    questions: Sequence[Question],
    scorer: Scorer,
    shots: Sequence[int],
    num_beams: int,
    trainer: Trainer,
) -> Judge:
    """The accuracy of the answers to `questions`, the mean over `shots`.

    Where `trainer` teaches the policy to stop, it shows as many demonstrations as it considers enough, at most the
    largest of `shots`, and each costs what the trainer says.
    """

    def values(policy: Policy) -> list[float]:
        adaptive = policy.stops and isinstance(trainer, CandidateTrainer)
        lengths = [max(shots)] if adaptive else list(shots)
        rows: list[tuple[Question, Ids]] = []
        with one_thread():
            for n in lengths:
                rows += zip(questions, _chosen(policy, context, questions, n, num_beams, adaptive), strict=True)
        accuracies = [accuracy for *_, accuracy in scorer.answers(rows, "choose the epoch: answers")]
        if adaptive:
            assert isinstance(trainer, CandidateTrainer)
            cost = trainer.stop.cost
            return [value - cost * len(ids) for value, (_, ids) in zip(accuracies, rows, strict=True)]
        n = len(questions)
        return [sum(accuracies[i::n]) / len(lengths) for i in range(n)]

    return Judge(ACCURACY, values)


def _chosen(
    policy: Policy, context: TrainingContext, questions: Sequence[Question], shots: int, num_beams: int, adaptive: bool
) -> list[Ids]:
    features, ids = context.features, [q.id for q in questions]
    found: list[Ids] = []
    for start in range(0, len(ids), BATCH):
        part = ids[start : start + BATCH]
        batch = features.batch(part)
        if adaptive:
            positions = policy.adaptive(batch, shots, num_beams)
        else:
            positions = policy.beam_search(batch, shots, num_beams)[0][:, 0].tolist()
        found += [tuple(features.pool_ids[q][p] for p in row) for q, row in zip(part, positions, strict=True)]
    return found


def by_candidates(context: TrainingContext, groups: Groups, trainer: Trainer) -> Judge:
    """The accuracy of the candidates in `groups`, those of the validation questions, as `expected_reward`."""

    def values(policy: Policy) -> list[float]:
        shown = groups_for(policy, groups)
        rows = {q: [(c.demonstrations, c.accuracy) for c in group] for q, group in shown.items()}
        data = training_data(context.features, rows)
        cost = trainer.stop.cost if policy.stops and isinstance(trainer, CandidateTrainer) else 0.0
        with one_thread():
            found: list[float] = expected_reward(*candidate_log_probs(policy, data), data.groups, cost).tolist()
        return found

    return Judge(ACCURACY, values)


def by_sequences(context: TrainingContext, sequences: Mapping[str, Sequence[ScoredSequence]]) -> Judge:
    """The mean log-probability of the searched `sequences`, those of the validation questions."""
    rows = {q: [(k.demonstrations, k.score) for k in kept] for q, kept in sequences.items()}
    data = training_data(context.features, rows)

    def values(policy: Policy) -> list[float]:
        with one_thread():
            choices = candidate_log_probs(policy, data)[0]  # (N, C)
        real = data.groups.mask
        found: list[float] = (torch.where(real, choices, 0.0).sum(1) / real.sum(1)).tolist()
        return found

    return Judge("log_probability", values)
