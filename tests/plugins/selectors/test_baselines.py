"""The built-in baselines select what their names say; the contract itself is checked in test_contracts.py."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from leverplus_core import (
    AnswerLogprob,
    Bank,
    Demonstration,
    EvalSet,
    Features,
    Ids,
    Image,
    Measure,
    Question,
    RecipeError,
    nearest,
    summed,
)
from leverplus_core.seeding import rng
from leverplus_selectors.bank_knn import BankKnnSelector
from leverplus_selectors.knn import ImageKnnSelector, StateKnnSelector, TextImageKnnSelector, TextKnnSelector
from leverplus_selectors.oracle import OracleSelector
from leverplus_selectors.uniform import RandomSelector
from leverplus_selectors.zero_shot import ZeroShotSelector

QUESTIONS = [Question(f"q{i}", "?", Image(f"q{i}"), ("yes",)) for i in range(3)]
POOLS = {"q0": ["a", "b", "c", "d"], "q1": ["e", "a", "c", "f"], "q2": ["f", "d", "b", "e"]}
DEMONSTRATIONS = [Demonstration(i, "?", Image(i), "yes") for i in "abcdef"]


def eval_set(questions: Sequence[Question] = QUESTIONS, order: str = "append", seed: int = 0) -> EvalSet:
    draw = {block: np.random.default_rng(i) for i, block in enumerate(("image", "text"))}
    similarity = {
        block: {q.id: generator.random(4).astype(np.float32) for q in QUESTIONS} for block, generator in draw.items()
    }
    rows = np.ones((len(questions), 1), np.float32)
    bank = Bank.without_features(DEMONSTRATIONS)
    return EvalSet(questions, POOLS, similarity, Features(rows, rows), bank, order, seed)  # type: ignore[arg-type]


class Table:
    """Log-probabilities and accuracies from a rule over demonstrations; counts what is measured."""

    def __init__(self, gain: Mapping[str, float] = {}, accuracy: Mapping[Ids, float] = {}) -> None:
        self.gain, self.accuracy = gain, accuracy
        self.logprobs_of: list[Ids] = []
        self.answers_of: list[Ids] = []

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[AnswerLogprob]:
        self.logprobs_of += [ids for _, ids in rows]
        return [AnswerLogprob(math.log(0.1 + sum(self.gain.get(d, 0.0) for d in ids)), 1) for _, ids in rows]

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[tuple[str, str, float]]:
        self.answers_of += [ids for _, ids in rows]
        return [("", "", self.accuracy.get(ids, 0.0)) for _, ids in rows]


NOTHING: Measure = Table()


def test_zero_shot_shows_nothing_whatever_shots_are_evaluated() -> None:
    part = ZeroShotSelector()
    assert part.shot_counts((1, 2, 4)) == (0,)
    assert part.select(eval_set(), (0,), NOTHING) == {0: [(), (), ()]}
    assert part.cost((1, 2), 32).answers == {0: 1} and part.cost((1, 2), 32).demonstrations == 0


def test_random_follows_seed_and_question_and_longer_sequences_begin_as_shorter_ones() -> None:
    part = RandomSelector()
    found = part.select(eval_set(), (1, 2, 4), NOTHING)
    for i, question in enumerate(QUESTIONS):
        order = rng(0, "random method", question.id).permutation(4)  # a frozen label: results must not change
        assert found[4][i] == tuple(POOLS[question.id][j] for j in order)
        assert found[1][i] == found[4][i][:1] and found[2][i] == found[4][i][:2]
    assert part.select(eval_set(QUESTIONS[2:]), (2,), NOTHING)[2] == found[2][2:]
    assert part.select(eval_set(seed=1), (4,), NOTHING)[4] != found[4]


def test_random_is_uniform_over_the_pool() -> None:
    draws = 2000
    counts = Counter(
        RandomSelector().select(eval_set(QUESTIONS[:1], seed=s), (1,), NOTHING)[1][0] for s in range(draws)
    )
    assert set(counts) == {("a",), ("b",), ("c",), ("d",)}
    assert all(abs(count - draws / 4) < 5 * (draws * 3 / 16) ** 0.5 for count in counts.values())


@pytest.mark.parametrize(("part", "block"), [(TextKnnSelector(), "text"), (ImageKnnSelector(), "image")])
def test_nearest_neighbors_are_those_of_their_block_with_the_nearest_next_to_the_question(
    part: TextKnnSelector, block: str
) -> None:
    seen = eval_set()
    found = part.select(seen, (1, 3), NOTHING)
    prepended = part.select(eval_set(order="prepend"), (3,), NOTHING)
    for i, question in enumerate(QUESTIONS):
        similarity = seen.similarity[block][question.id]
        ranked = [POOLS[question.id][j] for j in sorted(range(4), key=lambda j: -similarity[j])]
        assert found[1][i] == (ranked[0],)
        assert found[3][i] == tuple(ranked[2::-1]) and prepended[3][i] == tuple(ranked[:3])


def test_ties_go_to_the_order_of_the_pool() -> None:
    assert nearest(np.zeros(4, np.float32), 3, "prepend") == (0, 1, 2)


def test_text_and_image_count_equally_in_deviations_from_their_mean_over_the_pool() -> None:
    """Text 1, 2, 3, 2 has z = -1.414, 0, 1.414, 0; image .9, .3, .3, .5 (deviation .245) 1.633, -.816, -.816, 0.

    The sums are .219, -.816, .598, 0; plain sums, 1.9, 2.3, 3.3, 2.5, would rank the first last.
    """
    text, image = (np.array(row, np.float32) for row in ([1, 2, 3, 2], [0.9, 0.3, 0.3, 0.5]))
    assert summed([text, image]) == pytest.approx([0.2188, -0.8165, 0.5977, 0], abs=1e-4)
    seen = replace(eval_set(QUESTIONS[:1]), similarity={"text": {"q0": text}, "image": {"q0": image}})
    assert TextImageKnnSelector().select(seen, (1, 4), NOTHING) == {1: [("c",)], 4: [("b", "d", "a", "c")]}
    flat = replace(seen, similarity={"text": {"q0": np.full(4, 0.7, np.float32)}, "image": {"q0": image}})
    assert TextImageKnnSelector().select(flat, (2,), NOTHING) == {2: [("d", "a")]}  # no text is nearer than another


def test_a_rule_that_reads_states_says_so_where_there_are_none() -> None:
    for part in (StateKnnSelector(), BankKnnSelector(by="state")):
        assert part.blocks() == {"state"}
        with pytest.raises(
            RecipeError, match=r"_knn reads hidden states, and there are none\. Set encoder.hidden_states"
        ):
            part.select(eval_set(), (1,), NOTHING)


def test_an_oracle_shows_fewer_demonstrations_where_more_do_worse() -> None:
    """Accuracies .6 with none, 1 with (b,), .3 with the two sequences of two that are kept."""
    table = Table({"a": 0.4, "b": 0.2}, {(): 0.6, ("b",): 1.0, ("a", "b"): 0.3, ("b", "a"): 0.3})
    part = OracleSelector(num_beams=2, expand_top_k=2)
    assert part.select(eval_set(QUESTIONS[:1]), (1, 2), table) == {1: [("b",)], 2: [("b",)]}
    bare = Table({"a": 0.4, "b": 0.2}, {(): 0.6, ("a",): 0.5, ("b",): 0.5})
    assert part.select(eval_set(QUESTIONS[:1]), (1, 2), bare) == {1: [()], 2: [()]}


def test_an_oracle_is_never_worse_with_more_shots_and_is_the_best_of_what_it_measured() -> None:
    for seed in range(10):
        draw = np.random.default_rng(seed)
        every = [ids for n in range(4) for ids in permutations("abcdef", n)]
        table = Table(dict(zip("abcdef", draw.random(6), strict=True)), {ids: float(draw.random()) for ids in every})
        found = OracleSelector(num_beams=2).select(eval_set(QUESTIONS[:1]), (1, 2, 3), table)
        for n in (1, 2, 3):
            best = max(table.accuracy[ids] for ids in table.answers_of if len(ids) <= n)
            assert table.accuracy[found[n][0]] == best


def test_an_exhaustive_oracle_answers_with_every_demonstration_of_the_pool_alone() -> None:
    table = Table({"a": 0.4, "b": 0.2, "c": 0.1}, {("d",): 1.0})  # d has the least InfoScore: no search keeps it
    part = OracleSelector(num_beams=1, exhaustive_one_shot=True)
    assert part.select(eval_set(QUESTIONS[:1]), (1,), table) == {1: [("d",)]}
    assert Counter(map(len, table.answers_of)) == part.cost((1,), 4).answers == {0: 1, 1: 4}


def test_the_oracle_takes_the_most_accurate_of_what_its_search_kept() -> None:
    """Of the pool a, b, c, d the InfoScores rank a, b, c; the answers say that (b,) and (b, a) are right."""
    table = Table({"a": 0.4, "b": 0.2, "c": 0.1}, {("b",): 1.0, ("b", "a"): 1.0, ("d",): 1.0})
    part = OracleSelector(num_beams=2, expand_top_k=3)
    found = part.select(eval_set(QUESTIONS[:1]), (1, 2), table)
    assert found == {1: [("b",)], 2: [("b", "a")]}  # (d,) would be right, too, but the search does not keep it
    assert set(table.answers_of) == {(), ("a",), ("b",), ("a", "b"), ("b", "a")}
    cost = part.cost((1, 2), 4)
    assert Counter(map(len, table.logprobs_of)) == cost.logprobs and Counter(map(len, table.answers_of)) == cost.answers
    assert cost.demonstrations == 4


def test_an_oracle_by_accuracy_asks_for_no_log_probability() -> None:
    """Alone b and c are right; of what begins with them (c, d) alone is, and two of what is wrong come behind."""
    table = Table(accuracy={("b",): 0.6, ("c",): 0.9, ("c", "d"): 1.0, ("b", "a"): 0.3})
    part = OracleSelector(num_beams=2, expand_top_k=None, by="accuracy")
    assert part.select(eval_set(QUESTIONS[:1]), (1, 2), table) == {1: [("c",)], 2: [("c", "d")]}
    assert not table.logprobs_of
    cost = part.cost((1, 2), 4)
    assert not cost.logprobs and Counter(map(len, set(table.answers_of))) == cost.answers == {0: 1, 1: 4, 2: 6}


def test_where_accuracies_tie_the_oracle_takes_the_higher_info_score() -> None:
    table = Table({"a": 0.4, "b": 0.2, "c": 0.1}, {("a",): 0.6, ("b",): 0.6})
    assert OracleSelector(num_beams=3).select(eval_set(QUESTIONS[:1]), (1,), table) == {1: [("a",)]}


def test_an_oracle_that_keeps_the_whole_pool_finds_the_best_demonstration() -> None:
    for seed in range(20):
        draw = np.random.default_rng(seed)
        table = Table({d: float(draw.random()) for d in "abcdef"}, {(d,): float(draw.random()) for d in "abcdef"})
        found = OracleSelector(num_beams=4, expand_top_k=None).select(eval_set(), (1,), table)[1]
        for question, ids in zip(QUESTIONS, found, strict=True):
            assert table.accuracy[ids] == max(table.accuracy[d,] for d in POOLS[question.id])
