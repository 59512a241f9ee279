"""What chooses the epoch: answers to the policy's own choices, measured candidates, searched sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leverplus_core.plugins.contracts import Features
from leverplus_core.progress import Silent
from leverplus_core.records import Candidate, Ids, Image, Question, ScoredSequence
from leverplus_core.selector.base import FeatureWidths, TrainableSelector
from leverplus_core.selector.feature_set import FeatureSet
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import Batch, Encoded, Policy
from leverplus_core.training.base import StopSettings
from leverplus_core.training.data import TrainingContext
from leverplus_core.training.judge import by_answers, by_candidates, by_sequences
from leverplus_selectors.pointer import PointerSelector
from leverplus_trainers.mrt import MrtTrainer
from leverplus_trainers.sft import SftTrainer

IDS, BANK = ["q0", "q1"], ["d0", "d1", "d2", "d3"]
QUESTIONS = [Question(q, "?", Image(q), ("a",)) for q in IDS]
PROBABILITIES = [0.4, 0.3, 0.2, 0.1]


class Fixed(Policy):
    """Prefers the earlier of a pool, and stops where it has chosen `enough`."""

    def __init__(self, enough: int | None = None) -> None:
        super().__init__(TrainableSelector(), FeatureWidths(2, 2), enough is not None)
        self.enough = enough
        self.nothing = nn.Parameter(torch.zeros(1))

    def encode(self, batch: Batch) -> Encoded:
        b = len(batch.similarity)
        prior = torch.tensor(PROBABILITIES).log().expand(b, -1)
        state = torch.zeros(b, 1)
        return Encoded(state, torch.zeros(b, 4, 1), torch.zeros(b, 4, 1), prior)

    def scores(self, encoded: Encoded, state: Tensor, chosen: Tensor) -> Tensor:
        return encoded.prior[:, None].expand_as(chosen).masked_fill(chosen, -torch.inf)

    def next_state(self, encoded: Encoded, state: Tensor, position: Tensor) -> Tensor:
        return state

    def stop_logit(self, encoded: Encoded, state: Tensor, chosen: Tensor) -> Tensor:
        return torch.where(chosen.sum(-1) >= (self.enough or 0), 9.0, -9.0)


@dataclass
class Answers:
    """Stands for the model: right where the question's own demonstration is shown; keeps what was asked."""

    right: dict[str, str]
    asked: list[list[tuple[str, Ids]]]

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[tuple[str, str, float]]:
        self.asked.append([(q.id, ids) for q, ids in rows])
        return [("", "", float(self.right[q.id] in ids)) for q, ids in rows]


def context() -> TrainingContext:
    rows = np.zeros((4, 2), np.float32)
    encoded = FeatureSet(BANK, Features(rows, rows, rows), IDS, Features(rows[:2], rows[:2]))
    features = SelectorFeatures.of(encoded, dict.fromkeys(IDS, BANK))
    return TrainingContext(features, PointerSelector(), 0.5, 0, Silent())


def candidate(question: str, demonstrations: Ids, accuracy: float) -> Candidate:
    return Candidate(question, demonstrations, "", "", "", accuracy, accuracy >= 0.5)


def test_answers_to_the_policys_own_choices_are_averaged_over_shots() -> None:
    """At one shot it chooses d0, at two d0 and d1: q0 is right at both, q1 at the second alone."""
    model: Any = Answers({"q0": "d0", "q1": "d1"}, [])
    judge = by_answers(context(), QUESTIONS, model, (1, 2), 3, SftTrainer())
    assert judge.metric == "accuracy" and judge.values(Fixed()) == [1.0, 0.5]
    assert model.asked == [[("q0", ("d0",)), ("q1", ("d0",)), ("q0", ("d0", "d1")), ("q1", ("d0", "d1"))]]


def test_a_learned_stop_is_used_and_demonstrations_cost() -> None:
    model: Any = Answers({"q0": "d0", "q1": "d3"}, [])
    trainer = MrtTrainer(stop=StopSettings(cost=0.1))
    judge = by_answers(context(), QUESTIONS, model, (1, 3), 3, trainer)
    assert judge.values(Fixed(enough=2)) == pytest.approx([1 - 0.2, -0.2])
    assert model.asked == [[("q0", ("d0", "d1")), ("q1", ("d0", "d1"))]]
    assert judge.values(Fixed()) == [1.0, 0.0], "one that cannot stop shows all"


def test_a_trainer_that_does_not_teach_the_stop_is_judged_without_it() -> None:
    model: Any = Answers({"q0": "d0", "q1": "d1"}, [])
    assert by_answers(context(), QUESTIONS, model, (1, 2), 3, SftTrainer()).values(Fixed(enough=0)) == [1.0, 0.5]


def test_measured_candidates_count_as_the_policy_prefers_them() -> None:
    """q0, one shot: d0 is twice as probable as d2, and right; two shots: wrong. q1: right whatever it chooses."""
    groups = {
        "q0": [candidate("q0", ("d0",), 1.0), candidate("q0", ("d2",), 0.0), candidate("q0", ("d1", "d0"), 0.0)],
        "q1": [candidate("q1", ("d3",), 0.6), candidate("q1", (), 0.0)],
    }
    judge = by_candidates(context(), groups, MrtTrainer())
    assert judge.metric == "accuracy" and judge.values(Fixed()) == pytest.approx([(2 / 3 + 0) / 2, 0.6])


def test_searched_sequences_count_by_their_log_probability() -> None:
    sequences = {
        "q0": [ScoredSequence("q0", ("d0",), 0.5), ScoredSequence("q0", ("d1",), 0.1)],
        "q1": [ScoredSequence("q1", ("d3",), 0.5)],
    }
    judge = by_sequences(context(), sequences)
    assert judge.metric == "log_probability"
    assert judge.values(Fixed()) == pytest.approx([(math.log(0.4) + math.log(0.3)) / 2, math.log(0.1)])
