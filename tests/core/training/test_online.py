"""The on-policy rounds: what is drawn twice is measured once and counts twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leverplus_core.plugins.contracts import Features, Reward
from leverplus_core.progress import Silent
from leverplus_core.recipes.settings import CandidateSettings, OnlineSettings, PromptSettings
from leverplus_core.records import Candidate, Ids, Image, Question
from leverplus_core.selector.feature_set import FeatureSet
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import Policy
from leverplus_core.training.base import CandidateTrainer, FitResult, FitRun, Judge
from leverplus_core.training.data import TrainingContext
from leverplus_core.training.online import learn_online
from leverplus_core.training.tensors import TrainingData
from leverplus_selectors.pointer import PointerSelector

IDS, BANK = [f"q{i}" for i in range(8)], ["d0", "d1", "d2"]
QUESTIONS = {q: Question(q, "?", Image(q), ("a",)) for q in IDS}


class Accuracy(Reward):
    """The accuracy."""

    def compute(self, group: Sequence[Candidate]) -> list[float]:
        return [candidate.accuracy for candidate in group]


class Measuring:
    """Stands for the scorer; keeps what was measured."""

    prompt = PromptSettings()

    def __init__(self) -> None:
        self.measured: list[tuple[str, Ids]] = []

    def prompts(self, question: Question) -> int:
        return 2

    def candidates(self, rows: Sequence[tuple[Question, Ids, str]]) -> list[Candidate]:
        self.measured += [(q.id, ids) for q, ids, _ in rows]
        return [Candidate(q.id, ids, source, "", "", 1.0, True) for q, ids, source in rows]


class Given(CandidateTrainer):
    """Learns nothing, and keeps what it was given."""

    def fit(self, policy: Policy, data: TrainingData, run: FitRun) -> FitResult:
        GIVEN.append((data, run))
        return FitResult(1, 2, 3, [(0, {}), (1, {}), (2, {})])


GIVEN: list[tuple[TrainingData, FitRun]] = []


def test_a_sequence_drawn_twice_is_measured_once_and_counts_twice(tmp_path: Path) -> None:
    """Five draws from a pool of three: at least two are equal in every group."""
    rows = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    encoded = FeatureSet(BANK, Features(rows[:3], rows[:3], rows[:3]), IDS, Features(rows, rows))
    features = SelectorFeatures.of(encoded, dict.fromkeys(IDS, BANK))
    context = TrainingContext(features, PointerSelector(width=16, heads=2), 0.25, 0, Silent())
    drawn = CandidateSettings(shots=(1,), num_beams=0, samples={1.0: 5}, retrieval=0, random=0)
    settings = OnlineSettings(rounds=2, epochs=2, candidates=drawn)
    known: Mapping[str, Sequence[Candidate]] = {q: [Candidate(q, ("d0",), "", "", "", 0.0, False)] for q in IDS}
    scorer: Any = Measuring()
    judge, told = Judge("accuracy", lambda policy: [1.0]), list[int]()
    GIVEN.clear()
    metadata = learn_online(
        tmp_path, context, QUESTIONS, known, None, scorer, Accuracy(), settings, Given(), judge, IDS,
        lambda epoch, _: told.append(epoch),
    )  # fmt: skip
    assert len(set(scorer.measured)) == len(scorer.measured) and not {ids for _, ids in scorer.measured} & {("d0",)}
    for data, run in GIVEN:
        groups = data.groups
        assert run.judge is judge and groups.sequences.shape == (len(IDS) - len(context.validation_ids(IDS)), 5, 1)
        assert groups.mask.all(), "every draw is in the group"
        assert (groups.distinct().mask.sum(1) <= 3).all()
        # Only what was known already, d0, is wrong.
        assert ((groups.rewards == 0) == (groups.sequences[..., 0] == 0)).all()
    assert len(GIVEN) == 2 and told == list(range(6))
    assert [row["chosen_epoch"] for row in metadata["rounds"]] == [2, 2]
    assert metadata["prompts"] == 2 * len(scorer.measured)
