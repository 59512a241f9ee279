"""Mining: what the proposers may propose, by property; what mining brings and costs, on the demo model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from math import perm
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core.candidates.mine import STRATIFIED, SWAP, Mined, mine, one_swaps, propose, stratified
from leverplus_core.candidates.store import by_question
from leverplus_core.errors import DataError
from leverplus_core.plugins.contracts import Dataset, Model
from leverplus_core.plugins.manager import Catalog
from leverplus_core.progress import Progress, Silent
from leverplus_core.recipes.settings import MiningSettings, PromptSettings
from leverplus_core.records import Candidate, Decoding, Ids, Question
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.scoring.scorer import Scorer
from leverplus_core.seeding import rng

POOL = [f"d{i}" for i in range(6)]


def _candidate(ids: Ids, accuracy: float = 0.0, logprob: float = -1.0) -> Candidate:
    return Candidate("q", ids, "beam", "", "", accuracy, accuracy >= 0.5, logprob, 0.0)


@given(
    pool=st.integers(1, 7),
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True),
    count=st.integers(1, 30),
    strata=st.integers(1, 9),
    measured=st.integers(0, 40),
    seed=st.integers(0, 99),
)
def test_stratified_proposals_are_new_valid_and_as_many_as_there_are(
    pool: int, lengths: list[int], count: int, strata: int, measured: int, seed: int
) -> None:
    ranked = [f"d{i}" for i in range(pool)]
    space = [ids for n in lengths for ids in permutations(ranked, n)]
    known = {space[i] for i in np.random.default_rng(seed).permutation(len(space))[:measured]}
    found = stratified(ranked, lengths, known, count, strata, rng(seed))
    assert len(found) == len(set(found)) == min(count, len(space) - len(known))
    assert set(found) <= set(space) - known
    assert found == stratified(ranked, lengths, known, count, strata, rng(seed))


def test_stratified_proposals_stay_in_one_stratum_or_visit_each() -> None:
    ranked = [f"d{i}" for i in range(40)]
    found = stratified(ranked, [4], set(), 8, 4, rng(0))
    strata = [[int(d[1:]) // 10 for d in ids] for ids in found]
    within, across = strata[::2], strata[1::2]
    assert sorted(s[0] for s in within) == [0, 1, 2, 3] and all(len(set(s)) == 1 for s in within)
    assert all(sorted(s) == [0, 1, 2, 3] for s in across)


def test_one_swaps_of_a_pair_by_hand() -> None:
    found = one_swaps([("a", "b")], ["a", "b", "c", "d"], {("c", "b")}, 99, rng(0))
    assert set(found) == {("d", "b"), ("a", "c"), ("a", "d"), ("b", "a")} and len(found) == 4


@given(
    num_seeds=st.lists(st.permutations(POOL).map(lambda p: tuple(p[:3])), min_size=1, max_size=3, unique=True),
    count=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_one_swaps_are_new_and_one_step_away(num_seeds: list[Ids], count: int, seed: int) -> None:
    known = set(num_seeds)
    found = one_swaps(num_seeds, POOL, known, count, rng(seed))
    assert len(set(found)) == len(found) == count
    for ids in found:
        assert ids not in known and len(set(ids)) == 3
        changed = [[i for i in range(3) if ids[i] != start[i]] for start in num_seeds]
        assert any(
            len(at) == 1 or (len(at) == 2 and sorted(ids) == sorted(start))
            for at, start in zip(changed, num_seeds, strict=True)
        )


def test_swaps_start_from_positives_or_else_from_the_nearest_misses() -> None:
    settings = MiningSettings(min_positives=1, swap=1, num_seeds=1)
    group = [_candidate(("d0", "d1"), 0.0, -0.1), _candidate(("d2", "d3"), 1.0, -5.0), _candidate(("d4", "d5"), 0.3)]
    for known, start in ((group, {"d2", "d3"}), (group[::2], {"d4", "d5"}), (group[:1], {"d0", "d1"})):
        proposed = propose(known, POOL, 5, settings, rng(0))
        assert len(proposed) == 5
        assert all(source == SWAP and start & set(ids) for ids, source in proposed)


def test_the_shares_of_the_proposers_and_the_lengths_of_the_group() -> None:
    group = [_candidate(("d0",)), _candidate(("d1", "d2")), _candidate(())]
    proposed = propose(group, POOL, 8, MiningSettings(min_positives=1, swap=0.25), rng(0))
    assert [source for _, source in proposed] == [SWAP] * 2 + [STRATIFIED] * 6
    assert {len(ids) for ids, _ in proposed} == {1, 2}
    assert {len(ids) for ids, _ in propose(group, POOL, 8, MiningSettings(min_positives=1, shots=(3,)), rng(0))} == {3}
    whole = propose(group, POOL, 99, MiningSettings(min_positives=1), rng(0))
    assert len(whole) == perm(6, 1) + perm(6, 2) - 2, "what one proposer cannot give, the other does"


Case = tuple[Sequence[Question], dict[str, list[Candidate]], Mapping[str, Sequence[str]]]


@pytest.fixture(scope="module")
def world(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    cache = str(tmp_path_factory.mktemp("world"))
    return catalog.build("dataset", "demo_world", {"train": 80, "validation": 10, "cache": cache})


@pytest.fixture(scope="module")
def model(catalog: Catalog) -> Model:
    return catalog.build("model", "qwen2_5_vl", {"path": "demo"})


def _scorer(world: Dataset, model: Model, folder: Path, progress: Progress | None = None) -> Scorer:
    cached = CachedModel(lambda: model, model.identity, ResponseCache(folder / "m.sqlite"), progress)
    prompt = PromptSettings(system="Answer with one word.")
    return Scorer(cached, {d.id: d for d in world.demonstrations()}, prompt, Decoding(2, 1, 0.0))


@pytest.fixture(scope="module")
def case(world: Dataset, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Questions with one measured candidate each."""
    questions = world.questions("train")[:16]
    pools = {
        q.id: [d.id for d in world.demonstrations() if d.id != q.id and d.image.id != q.image.id][i : i + 24]
        for i, q in enumerate(questions)
    }
    scorer = _scorer(world, model, tmp_path_factory.mktemp("case"))
    rows = [(q, (pools[q.id][0],), "random") for q in questions]
    return questions, by_question(scorer.candidates(rows)), pools


def _mine(case: Case, scorer: Scorer, settings: MiningSettings, seed: int = 0) -> Mined:
    questions, groups, pools = case
    similarity = {q.id: rng(7, q.id).random(len(pools[q.id])) for q in questions}
    return mine(scorer, questions, groups, pools, similarity.__getitem__, settings, seed, Silent())


def test_mining_finds_positives_and_says_what_they_cost(
    world: Dataset, model: Model, case: Case, tmp_path: Path
) -> None:
    questions, groups, pools = case
    scorer = _scorer(world, model, tmp_path)
    mined = _mine(case, scorer, MiningSettings(min_positives=2, rounds=3, candidates_per_round=6))
    metadata, after = mined.metadata, by_question(mined.candidates)
    few = [q.id for q in questions if sum(c.correct for c in groups[q.id]) < 2]
    assert metadata["questions"] == len(few) and set(after) <= set(few)
    gained = sum(c.correct for c in mined.candidates)
    assert metadata["positives"] == gained >= 5
    assert metadata["helped"] == sum(any(c.correct for c in group) for group in after.values()) >= 3
    assert metadata["prompts"] == scorer.model.calls == 2 * len(mined.candidates) + len(after)
    assert metadata["positives_per_prompt"] == pytest.approx(gained / scorer.model.calls)
    assert sum(row["positives"] for row in metadata["by_proposer"].values()) == gained
    for q, group in after.items():
        sequences = [c.demonstrations for c in (*groups[q], *group)]
        assert len(sequences) == len(set(sequences)), "nothing is measured twice"
        assert all(set(ids) <= set(pools[q]) for ids in sequences)
        assert len(group) % 6 == 0
        before_last = [*groups[q], *group[:-6]]
        assert sum(c.correct for c in before_last) < 2, "a question that has enough is left alone"


def test_mining_again_calls_no_model_and_proposes_the_same(
    world: Dataset, model: Model, case: Case, tmp_path: Path
) -> None:
    settings = MiningSettings(min_positives=3, rounds=2, candidates_per_round=3)
    first = _mine(case, _scorer(world, model, tmp_path), settings)
    again = _scorer(world, model, tmp_path)
    assert _mine(case, again, settings) == first and again.model.calls == 0
    assert _mine(case, again, settings, seed=1).candidates != first.candidates


class _Killed(Exception):
    pass


class _KillAt(Silent):
    """Dies when the n-th batch of prompts begins."""

    def __init__(self, n: int) -> None:
        self.left = n

    def task(self, label: str, total: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise _Killed(label)
        return super().task(label, total)


def test_mining_killed_anywhere_ends_the_same_with_a_budget_too(
    world: Dataset, model: Model, case: Case, tmp_path: Path
) -> None:
    settings = MiningSettings(min_positives=3, rounds=3, candidates_per_round=2, budget=110)
    expected = _mine(case, _scorer(world, model, tmp_path / "undisturbed"), settings)
    assert expected.metadata["rounds"] >= 2 and expected.metadata["stopped"] == "budget"
    kills = 0
    for n in (1, 0, 2, 1, 1, 2, 1):
        try:
            _mine(case, _scorer(world, model, tmp_path / "killed", _KillAt(n)), settings)
        except _Killed:
            kills += 1
    assert kills >= 4
    found = _mine(case, _scorer(world, model, tmp_path / "killed"), settings)
    assert found.metadata == expected.metadata
    for a, b in zip(found.candidates, expected.candidates, strict=True):
        assert (a.demonstrations, a.source, a.raw_text, a.accuracy) == (
            b.demonstrations, b.source, b.raw_text, b.accuracy
        )  # fmt: skip


def test_first_proposals_do_not_depend_on_other_questions(
    world: Dataset, model: Model, case: Case, tmp_path: Path
) -> None:
    questions, groups, pools = case
    scorer = _scorer(world, model, tmp_path)
    settings = MiningSettings(min_positives=3, rounds=2, candidates_per_round=3)
    together = by_question(_mine(case, scorer, settings).candidates)
    for q in questions[:4]:
        assert _mine(([q], groups, pools), scorer, settings).candidates == together.get(q.id, [])


def test_the_budget_goes_to_the_questions_with_fewest_positives_and_holds(
    world: Dataset, model: Model, case: Case, tmp_path: Path
) -> None:
    questions, groups, _ = case
    positives = {q.id: sum(c.correct for c in groups[q.id]) for q in questions}
    order = sorted(positives, key=lambda q: (positives[q], q))
    for budget in (2, 9, 25):
        scorer = _scorer(world, model, tmp_path / str(budget))
        mined = _mine(case, scorer, MiningSettings(min_positives=2, rounds=5, candidates_per_round=4, budget=budget))
        assert mined.metadata["prompts"] == scorer.model.calls <= budget and mined.metadata["stopped"] == "budget"
        helped = list(by_question(mined.candidates))
        assert helped == order[: len(helped)]
        assert len(mined.candidates) == {2: 0, 9: 4, 25: 11}[budget]


def test_mining_ends_when_nothing_new_can_be_proposed(world: Dataset, model: Model, case: Case, tmp_path: Path) -> None:
    questions, groups, pools = case
    small = {q: pool[:3] for q, pool in pools.items()}
    mined = _mine(
        (questions[:3], groups, small), _scorer(world, model, tmp_path), MiningSettings(min_positives=99, rounds=9)
    )
    assert mined.metadata["stopped"] == "exhausted" and mined.metadata["rounds"] == 1
    assert {q: {c.demonstrations for c in group} for q, group in by_question(mined.candidates).items()} == {
        q.id: {(d,) for d in small[q.id][1:]} for q in questions[:3]
    }


def test_candidates_of_another_run_are_refused(world: Dataset, model: Model, case: Case, tmp_path: Path) -> None:
    questions, groups, pools = case
    other = {q: pool[1:] for q, pool in pools.items()}
    with pytest.raises(DataError, match=r"is not in its pool\. Pools and candidates are from different runs"):
        _mine((questions, groups, other), _scorer(world, model, tmp_path), MiningSettings(min_positives=99))
