"""From sequences and candidates to what a trainer learns from: who validates, what is padded, what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from leverplus_core.errors import DataError
from leverplus_core.plugins.contracts import Features, Reward
from leverplus_core.progress import Silent
from leverplus_core.records import Candidate, ScoredSequence
from leverplus_core.seeding import rng
from leverplus_core.selector.base import TrainableSelector
from leverplus_core.selector.checkpoint import read_meta
from leverplus_core.selector.feature_set import FeatureSet
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import Policy
from leverplus_core.training.base import FitResult, FitRun, Judge, Trainer
from leverplus_core.training.data import TrainingContext, fit_candidates, read_curve, train, training_data
from leverplus_core.training.tensors import TrainingData
from leverplus_selectors.pointer import PointerSelector

IDS = [f"q{i}" for i in range(40)]
BANK = [f"d{i}" for i in range(6)]


class Accuracy(Reward):
    """The accuracy."""

    def compute(self, group: Sequence[Candidate]) -> list[float]:
        return [candidate.accuracy for candidate in group]


Given = list[tuple[TrainingData, FitRun]]


def keeping(given: Given) -> Trainer:
    """A trainer that learns nothing, and keeps what it was given."""

    class Keeping(Trainer):
        def fit(self, policy: Policy, data: TrainingData, run: FitRun) -> FitResult:
            given.append((data, run))
            if run.on_epoch is not None:
                run.on_epoch(0, {"loss": 0.5})
            return FitResult(0, 1, 2, [(0, {"loss": 0.5})])

    return Keeping()


def context(selector: TrainableSelector | None = None, fraction: float = 0.25) -> TrainingContext:
    draw = np.random.default_rng(0)

    def rows(count: int) -> np.ndarray:
        return draw.normal(size=(count, 3)).astype(np.float32)

    encoded = FeatureSet(BANK, Features(rows(6), rows(6), rows(6)), IDS, Features(rows(40), rows(40)))
    features = SelectorFeatures.of(encoded, {q: BANK[:4] for q in IDS})
    return TrainingContext(features, selector or PointerSelector(width=16, heads=2), fraction, 0, Silent())


def candidate(question: str, demonstrations: Sequence[str], accuracy: float) -> Candidate:
    return Candidate(question, tuple(demonstrations), "", "", "", accuracy, accuracy >= 0.5)


def test_a_questions_own_number_says_whether_it_validates() -> None:
    """A frozen label: results must not change. What a balancer drops moves no other question."""
    here = context()
    expected = {q for q in IDS if rng(0, "held out", q).random() < 0.25}
    assert here.validation_ids(IDS) == expected and 0 < len(expected) < len(IDS)
    assert here.validation_ids(IDS[::3]) == expected & set(IDS[::3])


def test_labels_are_positions_in_the_pool_padded_at_the_end() -> None:
    rows: Mapping[str, Sequence[tuple[Sequence[str], float]]] = {
        "q3": [(("d2", "d0"), 0.5), (("d1",), 0.1)],
        "q1": [((), 0.0)],
    }
    data = training_data(context().features, rows, {"q3": [True, False], "q1": [False]})
    assert data.groups.sequences.tolist() == [[[2, 0], [1, -1]], [[-1, -1], [-1, -1]]]
    assert data.groups.mask.tolist() == [[True, True], [True, False]]
    assert data.groups.rewards[0].tolist() == pytest.approx([0.5, 0.1])
    assert data.groups.varies is not None and data.groups.varies.tolist() == [True, False]
    assert torch.equal(data.inputs(torch.tensor([1])).question.rows, context().features.batch(["q1"]).question.rows)


def test_a_demonstration_outside_the_pool_is_named() -> None:
    with pytest.raises(DataError, match=r"question q3: demonstration d5 is not in its pool\. .*different runs"):
        training_data(context().features, {"q3": [(("d0", "d5"), 0.5)]})


@pytest.mark.parametrize("stop", [False, True])
def test_an_empty_sequence_teaches_only_a_policy_that_can_stop(stop: bool) -> None:
    here = context(PointerSelector(width=16, heads=2, stop=stop))
    groups = {q: [candidate(q, (), 0.0), candidate(q, ("d1",), 1.0)] for q in IDS}
    groups["q0"] = [candidate("q0", (), 1.0)]
    given: Given = []
    fit_candidates(here.init_policy(None, IDS), here, groups, Accuracy(), keeping(given), FitRun("rce", 0))
    [(data, _)] = given
    apart = here.validation_ids(IDS)
    assert "q0" not in apart and len(data) == len(IDS) - len(apart) - (not stop)
    assert int(data.groups.mask.sum(1).max()) == 1 + stop


def test_a_new_policy_is_standardized_by_the_training_questions_alone() -> None:
    here = context()
    apart = here.validation_ids(IDS)
    rows = here.features.questions.rows[[i for i, q in enumerate(IDS) if q not in apart]]
    policy, again = here.init_policy(None, IDS), here.init_policy(None, IDS)
    torch.testing.assert_close(policy.query_mean, rows.mean(0))
    torch.testing.assert_close(policy.candidate_std, here.features.bank.rows.std(0, correction=0))
    assert all(map(torch.equal, policy.state_dict().values(), again.state_dict().values()))


def test_a_training_leaves_curve_policy_and_the_questions_that_it_has_seen(tmp_path: Path) -> None:
    here, told = context(), list[tuple[int, dict[str, float]]]()
    sequences = {q: [ScoredSequence(q, ("d1",), 0.2)] for q in IDS[:30]}
    given, judge = Given(), Judge("accuracy", lambda policy: [1.0])
    metadata = train(
        tmp_path, here, "sft", keeping(given), sequences, None, None, judge, IDS, lambda *row: told.append(row)
    )
    epochs = {"best_epoch": 0, "chosen_epoch": 1, "tied": 2}
    assert metadata == epochs and read_curve(tmp_path) == told == [(0, {"loss": 0.5})]
    assert given[0][1].judge is judge
    assert read_meta(tmp_path) == {
        **epochs,
        "validation_questions": sorted(here.validation_ids(IDS)),
        "learned_from": sorted(IDS),
    }
    resumed = here.init_policy(tmp_path, [])
    assert all(map(torch.equal, resumed.state_dict().values(), here.init_policy(None, IDS).state_dict().values()))
