"""The built-in samplers draw what they say; the contract itself is checked in test_contracts.py."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leverplus_core import (
    Bank,
    Catalog,
    DataError,
    Demonstration,
    Features,
    Image,
    Query,
    Question,
    Sampler,
    allowed,
    nearest_rows,
)
from leverplus_core.testing import tiny_bank
from leverplus_samplers.mixed import MixedSampler
from leverplus_samplers.similarity import ImageKnnSampler, TextKnnSampler
from leverplus_samplers.uniform import RandomSampler

SAMPLERS = (RandomSampler, TextKnnSampler, ImageKnnSampler, MixedSampler)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_random_is_uniform_over_what_is_allowed() -> None:
    query, bank = tiny_bank(size=13)
    rng = _rng()
    draws = 4000
    counts = Counter(row for _ in range(draws) for row in RandomSampler(k=3).pool(query, bank, rng))
    assert set(counts) == set(range(3, 13))
    expected = draws * 3 / 10
    assert all(abs(count - expected) < 5 * (expected * 0.7) ** 0.5 for count in counts.values())


@pytest.mark.parametrize(("sampler", "space"), [(TextKnnSampler, "text"), (ImageKnnSampler, "image")])
def test_similarity_takes_the_nearest_by_brute_force(sampler: type[Sampler], space: str) -> None:
    query, bank = tiny_bank(size=40)
    rows, vector = getattr(bank.features, space), getattr(query, space)
    cosine = {i: float(rows[i] @ vector) for i in range(3, 40)}
    expected = sorted(cosine, key=lambda i: -cosine[i])[:7]
    assert sampler(k=7).pool(query, bank, _rng()) == expected


@pytest.mark.parametrize("sampler", [TextKnnSampler, ImageKnnSampler])
def test_ties_go_to_the_lower_row(sampler: type[Sampler]) -> None:
    query, bank = tiny_bank(size=33, dim=7)
    alike = np.repeat(query.text[None], 33, axis=0)
    tied = Bank(bank.demonstrations, Features(alike, alike))
    assert sampler(k=9).pool(query, tied, _rng()) == list(range(3, 12))


@given(seed=st.integers(0, 2**32), size=st.integers(1, 60), count=st.integers(1, 60), copies=st.integers(1, 4))
def test_the_nearest_are_those_of_the_full_ranking(seed: int, size: int, count: int, copies: int) -> None:
    """Also among near-duplicates, which a rough product cannot tell apart."""
    draw = _rng(seed)
    features = draw.normal(size=(size, 96)).astype(np.float32)
    features = np.repeat(features, copies, axis=0)
    features[::2] += draw.choice([0, 1e-7], size=features[::2].shape).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    allowed_here = draw.random(len(features)) < 0.8
    rows = np.flatnonzero(allowed_here)
    query = features[draw.integers(len(features))]
    exact = [float(np.dot(features[i].astype(np.float64), query.astype(np.float64))) for i in rows]
    ranked = sorted(range(len(rows)), key=lambda i: (-round(exact[i], 15), rows[i]))
    (got,) = nearest_rows([(query[None], features)], [np.flatnonzero(~allowed_here)], count)
    value = dict(zip(rows.tolist(), exact, strict=True))
    assert len(set(got.tolist())) == len(got) == min(count, len(rows))
    assert [value[i] for i in got.tolist()] == pytest.approx([exact[i] for i in ranked[:count]], abs=1e-14)


def test_the_questions_own_image_is_never_shown_even_if_nearest() -> None:
    query, bank = tiny_bank()
    assert float(bank.features.image[0] @ query.image) == pytest.approx(1)
    assert {0, 1, 2}.isdisjoint(ImageKnnSampler(k=21).pool(query, bank, _rng()))


def test_a_not_a_number_feature_is_named() -> None:
    query, bank = tiny_bank()
    text = bank.features.text.copy()
    text[5, 0] = np.nan
    broken = Bank(bank.demonstrations, replace(bank.features, text=text))
    for sampler in (TextKnnSampler(k=3), MixedSampler(k=8)):
        with pytest.raises(DataError, match="row 5"):
            sampler.pool(query, broken, _rng())


def test_mixed_holds_its_shares() -> None:
    query, bank = tiny_bank(size=60)
    pool = MixedSampler(k=16).pool(query, bank, _rng())
    text = TextKnnSampler(k=4).pool(query, bank, _rng())
    assert len(set(pool)) == 16
    assert set(text) <= set(pool)
    image = [row for row in ImageKnnSampler(k=57).pool(query, bank, _rng()) if row not in text][:4]
    assert set(image) <= set(pool)
    # Over many draws every other row comes up: the rest is uniform, not near.
    seen = {row for seed in range(60) for row in MixedSampler(k=16).pool(query, bank, _rng(seed))}
    assert seen == set(range(3, 60))


def test_mixed_counts_a_row_near_in_both_once_and_refills() -> None:
    query, bank = tiny_bank(size=40)
    same = replace(query, image=query.text)
    both = Bank(bank.demonstrations, Features(bank.features.text, bank.features.text))
    pool = MixedSampler(k=12).pool(same, both, _rng())
    assert len(set(pool)) == 12
    assert set(TextKnnSampler(k=6).pool(same, both, _rng())) <= set(pool)


def test_mixed_takes_the_nearest_by_the_hidden_state_where_its_share_is_above_0() -> None:
    query, bank = tiny_bank(size=40)
    assert bank.features.state is not None and query.state is not None
    cosine = {i: float(bank.features.state[i] @ query.state) for i in range(3, 40)}
    nearest_by_state = sorted(cosine, key=lambda i: -cosine[i])[:8]
    sampler = MixedSampler(k=16, text=0, image=0, state=0.5)
    assert sampler.blocks() == {"state"}
    assert sampler.pool(query, bank, _rng())[-8:] == nearest_by_state
    stateless = Bank(bank.demonstrations, replace(bank.features, state=None))
    with pytest.raises(DataError, match=r"there are no .*states\. Set encoder\.hidden_states"):
        sampler.pool(query, stateless, _rng())


@given(seed=st.integers(0, 2**32), copies=st.integers(1, 3))
def test_mixed_takes_the_nearest_by_both_similarities_in_deviations_from_their_means(seed: int, copies: int) -> None:
    query, bank = tiny_bank(size=30, seed=seed % 97)
    text, image = (np.repeat(rows, copies, axis=0) for rows in (bank.features.text, bank.features.image))
    shown = tuple(bank.demonstrations[i // copies] for i in range(30 * copies))
    shown = tuple(replace(d, id=f"d{i}") for i, d in enumerate(shown))
    larger = Bank(shown, Features(image, text))
    rows = allowed(query, larger)
    total = np.zeros(len(rows))
    for block, vector in ((text, query.text), (image, query.image)):
        cosines = (block[rows].astype(np.float64) * vector).sum(axis=1)
        total += (cosines - cosines.mean()) / cosines.std()
    expected = sorted(zip(-total.round(4), rows.tolist(), strict=True))  # equal rows: the lower number first
    sampler = MixedSampler(k=8, text=0, image=0, text_image=1)
    assert sampler.blocks() == {"text", "image"}
    assert sampler.pool(query, larger, _rng()) == [row for _, row in expected[:8]]


@pytest.mark.parametrize(
    "sampler",
    [
        RandomSampler(k=16),
        TextKnnSampler(k=16),
        ImageKnnSampler(k=16),
        MixedSampler(k=16, text=0.25, image=0.25, text_image=0.25),
        MixedSampler(k=16, text=0.5, image=0.5),
    ],
)
def test_a_batch_draws_what_a_ranking_of_the_whole_bank_draws_for_each_question(sampler: Sampler) -> None:
    """Computed here one question at a time and in float64; a third of the bank's rows are copies of others."""
    draw = _rng(3)
    rows = draw.normal(size=(2, 900, 24)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    rows[:, 600:] = rows[:, :300]
    image, text = rows
    bank = Bank(
        [Demonstration(f"d{i}", "?", Image(f"i{i // 3}"), "a") for i in range(900)], Features(image=image, text=text)
    )
    asked = draw.permutation(900)[:40]
    queries = [Query(Question(f"d{i}", "?", Image(f"i{i // 3}"), ("a",)), image[i], text[i]) for i in asked]

    def expected(query: Query, rng: np.random.Generator) -> list[int]:
        fair = np.array([i for i, d in enumerate(bank.demonstrations) if d.image.id != query.question.image.id])
        cosine = {
            "text": (text[fair].astype(np.float64) * query.text.astype(np.float64)).sum(axis=1),
            "image": (image[fair].astype(np.float64) * query.image.astype(np.float64)).sum(axis=1),
        }
        z = {name: (c - c.mean()) / c.std() for name, c in cosine.items()}
        cosine["text_image"] = z["text"] + z["image"]
        shares = {"text": 0.0, "image": 0.0, "text_image": 0.0}
        if isinstance(sampler, MixedSampler):
            shares = {name: getattr(sampler, name) for name in shares}
        elif not isinstance(sampler, RandomSampler):
            shares[next(iter(sampler.blocks()))] = 1.0
        near: list[int] = []
        for name, share in shares.items():
            ranked = fair[np.argsort(-cosine[name].round(12), kind="stable")].tolist()
            near += [row for row in ranked if row not in near][: int(share * sampler.k)]
        rest = np.array([row for row in fair.tolist() if row not in near])
        return [*rng.choice(rest, size=sampler.k - len(near), replace=False).tolist(), *near]

    found = sampler.pools(queries, bank, [_rng(i) for i in range(40)])
    assert [list(pool) for pool in found] == [expected(query, _rng(i)) for i, query in enumerate(queries)]
    assert list(sampler.pools(queries[7:8], bank, [_rng(7)])[0]) == found[7]


@given(
    size=st.integers(4, 30),
    k=st.integers(1, 27),
    shares=st.tuples(*[st.floats(0, 1)] * 4),
    seed=st.integers(0, 9),
)
def test_mixed_is_always_exactly_k_distinct_allowed_rows(
    size: int, k: int, shares: tuple[float, float, float, float], seed: int
) -> None:
    text, image, both, state = (share / max(sum(shares), 1) for share in shares)
    query, bank = tiny_bank(size=size, seed=seed)
    rows = set(allowed(query, bank).tolist())
    sampler = MixedSampler(k=k, text=text, image=image, text_image=both, state=state)
    if k > len(rows):
        with pytest.raises(DataError, match=f"k={k}.*{len(rows)} of {size}"):
            sampler.pool(query, bank, _rng(seed))
    else:
        pool = sampler.pool(query, bank, _rng(seed))
        assert len(pool) == len(set(pool)) == k
        assert set(pool) <= rows


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_too_large_a_k_says_the_numbers(sampler: type[Sampler]) -> None:
    query, bank = tiny_bank(size=10)
    with pytest.raises(DataError, match=r"question q0 needs a pool of k=8, but only 7 of 10 .* k to 7 or less"):
        sampler(k=8).pool(query, bank, _rng())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_empty_bank_says_so(sampler: type[Sampler]) -> None:
    query, _ = tiny_bank()
    nothing = np.zeros((0, 8), np.float32)
    with pytest.raises(DataError, match="train split is empty"):
        sampler(k=1).pool(query, Bank([], Features(nothing, nothing)), _rng())


def test_a_bank_of_the_questions_own_image_only() -> None:
    image = Image("one")
    query = Query(Question("q", "?", image, ("a",)), np.ones(1, np.float32), np.ones(1, np.float32))
    bank = Bank([Demonstration("d", "?", image, "a")], Features(*(np.ones((1, 1), np.float32),) * 2))
    with pytest.raises(DataError, match="other images"):
        RandomSampler(k=1).pool(query, bank, _rng())


def test_the_name_of_the_report_means_the_same_sampler(catalog: Catalog) -> None:
    assert catalog.part_class("sampler", "rand") is catalog.part_class("sampler", "random") is RandomSampler
