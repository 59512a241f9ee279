"""Pools of several sizes: what a question sees does not depend on the sizes of the others' pools."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from leverplus_core.errors import DataError
from leverplus_core.plugins.contracts import Features
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.settings import CandidateSettings, Order
from leverplus_core.selector.features import SelectorFeatures
from leverplus_core.selector.policy import cosine_features
from leverplus_core.selector.propose import propose

POOLS = {
    "q0": ["d1", "d2", "d3"],
    "q1": ["d4", "d0", "d2", "d5", "d3"],
    "q2": ["d5", "d1"],
    "empty": [],
    "absent": ["d0"],
}


def _table(pools: dict[str, list[str]]) -> SelectorFeatures:
    draw = np.random.default_rng(0)

    def rows(count: int, width: int) -> np.ndarray:
        found = draw.normal(size=(count, width)).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    bank = Features(rows(6, 4), rows(6, 3), rows(6, 3))
    questions = {q: (rows(1, 4)[0], rows(1, 3)[0]) for q in ("q0", "q1", "q2", "empty")}
    return SelectorFeatures.of([f"d{i}" for i in range(6)], bank, questions, pools)


@pytest.mark.parametrize("name", ["pointer", "pairwise", "lever_lm"])
def test_a_question_sees_the_same_beside_larger_pools(name: str, catalog: Catalog) -> None:
    table = _table(POOLS)
    assert table.pool_mask is not None and list(table.row) == ["q0", "q1", "q2"]
    torch.manual_seed(0)
    policy = catalog.build("selector", name, {}).policy(7, 10).eval()
    together = policy.log_probs(table.batch(["q0", "q1", "q2"]), torch.tensor([[[1, 0]], [[4, 2]], [[0, 1]]]))
    for i, (question, sequence) in enumerate({"q0": [1, 0], "q1": [4, 2], "q2": [0, 1]}.items()):
        alone = _table({question: POOLS[question]})
        assert alone.pool_mask is None
        expected = policy.log_probs(alone.batch([question]), torch.tensor([[sequence]]))
        assert torch.allclose(together[i], expected[0], atol=1e-5)
        assert np.allclose(table.similarity_of(question), alone.similarity_of(question))
        assert table.similarity_of(question).shape == (len(POOLS[question]), 2)


def test_states_stand_between_text_and_answer() -> None:
    one, two = np.eye(2, dtype=np.float32)[[0]], np.eye(3, dtype=np.float32)[[0, 1]]
    bank = Features(np.repeat(one, 2, 0), np.repeat(one, 2, 0), np.repeat(one, 2, 0), two)
    table = SelectorFeatures.of(["d0", "d1"], bank, {"q": (one[0], one[0], two[1])}, {"q": ["d1", "d0"]})
    batch = table.batch(["q"])
    assert batch.state_width == 3 and batch.query.shape == (1, 7) and batch.candidates.shape == (1, 2, 9)
    assert cosine_features(batch.rows(0, 1))[0, :, 6].tolist() == [1, 0]
    assert batch.candidates[0, 0].tolist() == [1, 0, 1, 0, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("order", ["prepend", "append"])
def test_retrieval_puts_the_nearest_next_to_the_question(order: Order, catalog: Catalog) -> None:
    table = _table(POOLS)
    policy = catalog.build("selector", "pointer", {}).policy(7, 10)
    settings = CandidateSettings(shots=(2,), num_beams=0, samples={}, retrieval=1, random=0)
    (((shown, _),),) = propose(policy, table.batch(["q1"]), ["q1"], settings, 0, order)
    first, second = np.argsort(-table.similarity_of("q1").sum(1))[:2]
    assert shown == ((first, second) if order == "prepend" else (second, first))


def test_what_is_proposed_is_in_the_pool(catalog: Catalog) -> None:
    table, ids = _table(POOLS), ["q0", "q1", "q2"]
    policy = catalog.build("selector", "pointer", {}).policy(7, 10)
    settings = CandidateSettings(shots=(1, 2), num_beams=5, samples={1.0: 4}, retrieval=5, random=4)
    for question, found in zip(ids, propose(policy, table.batch(ids), ids, settings, seed=0), strict=True):
        assert all(position < len(POOLS[question]) for positions, _ in found for position in positions)
        alone = propose(policy, _table({question: POOLS[question]}).batch([question]), [question], settings, seed=0)[0]
        assert {p for p, source in found if source in ("retrieval", "random")} == {
            p for p, source in alone if source in ("retrieval", "random")
        }


def test_pools_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(DataError, match="no question has a pool"):
        _table({"absent": ["d0"]})
    with pytest.raises(DataError, match="demonstration d9 of its pool has no features"):
        _table({"q0": ["d9"]})
