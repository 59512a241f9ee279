"""Pools of several sizes: what a question sees does not depend on the sizes of the others' pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from leverplus_core.errors import DataError
from leverplus_core.plugins.contracts import Features
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.settings import CandidateSettings, Order
from leverplus_core.selector.base import FeatureWidths, TrainableSelector
from leverplus_core.selector.feature_set import FeatureSet
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import Policy, cosine_features
from leverplus_core.selector.propose import propose

WIDTHS = FeatureWidths(image=4, text=3)
POOLS = {
    "q0": ["d1", "d2", "d3"],
    "q1": ["d4", "d0", "d2", "d5", "d3"],
    "q2": ["d5", "d1"],
    "empty": [],
    "absent": ["d0"],
}


def _features(pools: Mapping[str, Sequence[str]]) -> SelectorFeatures:
    draw = np.random.default_rng(0)

    def rows(count: int, width: int) -> np.ndarray:
        found = draw.normal(size=(count, width)).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    bank = Features(rows(6, 4), rows(6, 3), rows(6, 3))
    ids = ["q0", "q1", "q2", "empty"]
    return SelectorFeatures.of(
        FeatureSet([f"d{i}" for i in range(6)], bank, ids, Features(rows(4, 4), rows(4, 3))), pools
    )


def _similarity(features: SelectorFeatures, question_id: str) -> np.ndarray:
    return np.stack([features.similarity(block, question_id) for block in ("image", "text")], axis=1)


def _policy(catalog: Catalog, name: str = "pointer") -> Policy:
    torch.manual_seed(0)
    selector = catalog.build("selector", name, {})
    assert isinstance(selector, TrainableSelector)
    return selector.policy(WIDTHS).eval()


@pytest.mark.parametrize("name", ["pointer", "pairwise", "lever_lm"])
def test_a_question_sees_the_same_beside_larger_pools(name: str, catalog: Catalog) -> None:
    features = _features(POOLS)
    assert features.pool_mask is not None and list(features.row) == ["q0", "q1", "q2"]
    policy = _policy(catalog, name)
    together = policy.log_probs(features.batch(["q0", "q1", "q2"]), torch.tensor([[[1, 0]], [[4, 2]], [[0, 1]]]))
    for i, (question, sequence) in enumerate({"q0": [1, 0], "q1": [4, 2], "q2": [0, 1]}.items()):
        alone = _features({question: POOLS[question]})
        assert alone.pool_mask is None
        expected = policy.log_probs(alone.batch([question]), torch.tensor([[sequence]]))
        assert torch.allclose(together[i], expected[0], atol=1e-5)
        assert np.allclose(_similarity(features, question), _similarity(alone, question))
        assert _similarity(features, question).shape == (len(POOLS[question]), 2)


def test_states_stand_between_text_and_answer() -> None:
    one, two = np.eye(2, dtype=np.float32)[[0]], np.eye(3, dtype=np.float32)[[0, 1]]
    bank = Features(np.repeat(one, 2, 0), np.repeat(one, 2, 0), np.repeat(one, 2, 0), two)
    encoded = FeatureSet(["d0", "d1"], bank, ["q"], Features(one, one, state=two[[1]]))
    features = SelectorFeatures.of(encoded, {"q": ["d1", "d0"]})
    batch = features.batch(["q"])
    assert features.widths == FeatureWidths(image=2, text=2, state=3, answer=2)
    assert batch.question.rows.shape == (1, 7) and batch.candidates.rows.shape == (1, 2, 9)
    assert cosine_features(batch.rows(0, 1))[0, :, 6].tolist() == [1, 0]
    assert batch.candidates.rows[0, 0].tolist() == [1, 0, 1, 0, 0, 1, 0, 1, 0]
    assert features.similarity("state", "q").tolist() == [1, 0]


@pytest.mark.parametrize("where", ["bank", "questions"])
def test_states_of_one_side_only_are_left_out(where: str) -> None:
    one, state = np.eye(2, dtype=np.float32)[[0]], np.eye(3, dtype=np.float32)[[0]]
    bank = Features(one, one, one, state if where == "bank" else None)
    questions = Features(one, one, state=state if where == "questions" else None)
    features = SelectorFeatures.of(FeatureSet(["d"], bank, ["q"], questions), {"q": ["d"]})
    assert features.widths == FeatureWidths(image=2, text=2, answer=2)
    assert features.batch(["q"]).candidates.rows.shape == (1, 1, 6)


@pytest.mark.parametrize("order", ["prepend", "append"])
def test_retrieval_puts_the_nearest_next_to_the_question(order: Order, catalog: Catalog) -> None:
    features = _features(POOLS)
    policy = _policy(catalog)
    settings = CandidateSettings(shots=(2,), num_beams=0, samples={}, retrieval=1, random=0)
    (((shown, _),),) = propose(policy, features.batch(["q1"]), ["q1"], settings, 0, order)
    first, second = np.argsort(-_similarity(features, "q1").sum(1))[:2]
    assert shown == ((first, second) if order == "prepend" else (second, first))


def test_what_is_proposed_is_in_the_pool(catalog: Catalog) -> None:
    features, ids = _features(POOLS), ["q0", "q1", "q2"]
    policy = _policy(catalog)
    settings = CandidateSettings(shots=(1, 2), num_beams=5, samples={1.0: 4}, retrieval=5, random=4)
    for question, found in zip(ids, propose(policy, features.batch(ids), ids, settings, seed=0), strict=True):
        assert all(position < len(POOLS[question]) for positions, _ in found for position in positions)
        alone = propose(policy, _features({question: POOLS[question]}).batch([question]), [question], settings, seed=0)[
            0
        ]
        assert {p for p, source in found if source in ("retrieval", "random")} == {
            p for p, source in alone if source in ("retrieval", "random")
        }


def test_pools_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(DataError, match=r"no question has a pool\. Pools and questions are from different data"):
        _features({"absent": ["d0"]})
    with pytest.raises(DataError, match="demonstration d9 of its pool has no features"):
        _features({"q0": ["d9"]})


def test_samples_do_not_depend_on_the_questions_beside_them(catalog: Catalog) -> None:
    features, policy = _features(POOLS), _policy(catalog)
    settings = CandidateSettings(shots=(1, 2), num_beams=0, samples={1.0: 4, 1.3: 2}, retrieval=0, random=0)
    ids = ["q0", "q1", "q2"]
    together = propose(policy, features.batch(ids), ids, settings, seed=0, repeats=True)
    alone = [propose(policy, features.batch([q]), [q], settings, seed=0, repeats=True)[0] for q in ids]
    assert together == alone and [len(found) for found in alone] == [12, 12, 12]
