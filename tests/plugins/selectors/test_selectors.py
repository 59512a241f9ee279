"""Selectors: probabilities, beams and samples agree, a pool's order means nothing, they learn, they stop."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leverplus_core import (
    Batch,
    Blocks,
    DataError,
    FeatureWidths,
    FitRun,
    Policy,
    StopSettings,
    TrainableSelector,
    TrainingData,
    TrainingGroups,
    cosine_features,
)
from leverplus_selectors.lever_lm import LeverLmSelector
from leverplus_selectors.pairwise import PairwiseSelector
from leverplus_selectors.pointer import PointerSelector
from leverplus_selectors.pointer_policy import PointerPolicy
from leverplus_trainers.rce import RceTrainer
from leverplus_trainers.sft import SftTrainer

WIDTHS = FeatureWidths(image=3, text=3)
State = Literal["none", "gate", "gru"]
STATES: tuple[State, ...] = ("none", "gate", "gru")


def small(state: State = "gru", layers: int = 1, seed: int = 0, **more: Any) -> PointerPolicy:
    torch.manual_seed(seed)
    policy = PointerSelector(width=16, heads=2, layers=layers, state=state, **more).policy(WIDTHS)
    assert isinstance(policy, PointerPolicy) and policy.weigh is not None
    torch.nn.init.constant_(policy.weigh.weight, 0.05)  # so that the similarities take part
    return policy.eval()


def batch_of(question: Tensor, candidates: Tensor, similarity: Tensor, widths: FeatureWidths = WIDTHS) -> Batch:
    return Batch(Blocks(question, widths.question), Blocks(candidates, widths.candidate), similarity)


def batch(questions: int = 3, pool: int = 5, seed: int = 1) -> Batch:
    g = torch.Generator().manual_seed(seed)
    return batch_of(
        torch.randn(questions, 6, generator=g),
        torch.randn(questions, pool, 9, generator=g),
        torch.randn(questions, pool, 2, generator=g),
    )


def all_sequences(questions: int, pool: int, shots: int) -> Tensor:
    return torch.tensor(list(itertools.permutations(range(pool), shots))).expand(questions, -1, -1)


def lever_lm(seed: int = 0, stop: bool = False) -> Policy:
    torch.manual_seed(seed)
    return LeverLmSelector(width=16, heads=2, stop=stop).policy(WIDTHS).eval()


def pairwise() -> Policy:
    torch.manual_seed(0)
    return PairwiseSelector(width=16).policy(WIDTHS).eval()


def every_kind() -> list[Any]:
    """Each setting of each selector that changes how a sequence is scored."""
    pointers: list[dict[str, Any]] = [
        *({"state": state} for state in STATES),
        *({"score": score} for score in ("dot", "additive")),
        {"diversity": "mmr"},
        {"score": "additive", "diversity": "mmr", "state": "gate"},
    ]
    named = [pytest.param(small(**kind), id="pointer-" + "-".join(kind.values())) for kind in pointers]
    return [*named, pytest.param(lever_lm(), id="lever_lm"), pytest.param(pairwise(), id="pairwise")]


@pytest.mark.parametrize("policy", every_kind())
@pytest.mark.parametrize("shots", [1, 2, 3])
def test_probabilities_of_all_sequences_sum_to_one(policy: Policy, shots: int) -> None:
    logp = policy.log_probs(batch(), all_sequences(3, 5, shots))
    torch.testing.assert_close(logp.exp().sum(1), torch.ones(3))


@pytest.mark.parametrize("policy", [*every_kind(), small(stop=True), lever_lm(stop=True)])
def test_a_step_and_a_choice_stay_on_the_device_of_the_batch(policy: Policy) -> None:
    """Tensors of the device "meta" have no values: to read one, or to mix it with one of the CPU, is an error."""
    b, there = batch(), copy.deepcopy(policy).to("meta").train()
    moved = batch_of(*(rows.to("meta") for rows in (b.question.rows, b.candidates.rows, b.similarity)))
    masked = replace(moved, pool_mask=torch.ones(3, 5, dtype=torch.bool, device="meta"))
    choices, stops = there.step_log_probs(masked, all_sequences(3, 5, 2).to("meta"))
    (choices.sum() + stops.sum()).backward()
    learned = [p for p in there.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in learned)
    positions, log_probs = there.eval().beam_search(moved, 2, 3)
    assert (positions.device.type, log_probs.device.type) == ("meta", "meta")
    assert (positions.shape, log_probs.shape) == ((3, 3, 2), (3, 3))


@pytest.mark.parametrize("policy", [small(stop=True), small("gate", stop=True), lever_lm(stop=True)])
def test_with_a_learned_stop_the_sequences_of_all_lengths_sum_to_one(policy: Policy) -> None:
    b, pool = batch(pool=3), 3
    total = torch.zeros(3)
    for shots in range(pool):
        total += policy.log_probs(b, all_sequences(3, pool, shots) if shots else torch.full((3, 1, 1), -1)).exp().sum(1)
    # Of the full length only the choices count: with nothing left to choose, whether to stop is no question.
    choices, stops = policy.step_log_probs(b, all_sequences(3, pool, pool))
    total += (choices.sum(-1) + stops[..., :-1].sum(-1)).exp().sum(1)
    torch.testing.assert_close(total, torch.ones(3))


def test_mmr_prefers_what_is_unlike_the_chosen() -> None:
    plain, diverse, b = small("none"), small("none", diversity="mmr", mmr_weight=0.9), batch(questions=1)
    b.candidates.rows[0, 1] = b.candidates.rows[0, 0]  # a twin of the first
    twin = torch.tensor([[[0, 1]]])

    def odds(policy: Policy) -> float:
        return policy.step_log_probs(b, twin)[0][0, 0, 1].exp().item()

    assert odds(diverse) < odds(plain) / 10


def test_dot_and_bilinear_start_alike_and_only_the_latter_learns_what_to_look_for() -> None:
    dot, bilinear = small(score="dot"), small(score="bilinear")
    names = {name for name, _ in bilinear.named_parameters()} - {name for name, _ in dot.named_parameters()}
    assert names == {"look.weight"} and torch.equal(bilinear.look.weight, torch.eye(16))  # type: ignore[union-attr]


@pytest.mark.parametrize("policy", every_kind())
def test_each_kind_is_trained_through_every_weight_that_it_has(policy: Policy) -> None:
    policy.log_probs(batch(), all_sequences(3, 5, 2)).logsumexp(1).sum().neg().add(
        policy.log_probs(batch(), torch.tensor([[[0, 1]]]).expand(3, 1, 2)).sum()
    ).backward()
    dead = {
        n for n, p in policy.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
    }
    # A GPT-2 of one pass has positions that no sequence here reaches, but they are one tensor with those that are.
    assert not dead


@given(seed=st.integers(0, 1000), layers=st.integers(1, 3), state=st.sampled_from(STATES))
@settings(max_examples=15, deadline=None)
def test_shuffling_the_pool_shuffles_the_answer(seed: int, layers: int, state: State) -> None:
    selector, b = small(state, layers), batch(seed=seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    shuffled = batch_of(b.question.rows, b.candidates.rows[:, order], b.similarity[:, order])
    sequences = all_sequences(3, 5, 2)
    torch.testing.assert_close(
        selector.log_probs(shuffled, order.argsort()[sequences]), selector.log_probs(b, sequences), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("state", STATES)
def test_a_wide_beam_is_exact_search(state: State) -> None:
    selector, b, sequences = small(state), batch(), all_sequences(3, 5, 2)
    logp, best = selector.log_probs(b, sequences).sort(dim=1, descending=True)
    positions, found = selector.beam_search(b, 2, 100)
    assert positions.shape == (3, 20, 2)
    torch.testing.assert_close(found, logp)
    assert positions[:, 0].tolist() == sequences[0][best[:, 0]].tolist()
    assert all(len({tuple(s) for s in row}) == 20 for row in positions.tolist())


def test_steps_sum_to_the_whole_and_padding_counts_nothing() -> None:
    selector, b = small(), batch()
    padded = torch.tensor([[2, 0, -1, -1], [1, -1, -1, -1], [-1, -1, -1, -1]]).expand(3, -1, -1)
    steps = selector.step_log_probs(b, padded)[0]  # (B, C, T)
    assert steps.shape == (3, 3, 4) and (steps[:, 0, 2:] == 0).all() and (steps[:, 2] == 0).all()
    torch.testing.assert_close(selector.log_probs(b, padded[:, :1]), selector.log_probs(b, padded[:, :1, :2]))
    torch.testing.assert_close(steps.sum(-1), selector.log_probs(b, padded))
    steps.sum().backward()
    gradients = [p.grad for p in selector.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(g).all() for g in gradients)


FOUR = torch.tensor([[0, 2], [1, 2], [0, 3], [1, 3]])


@pytest.mark.parametrize("state", STATES)
def test_what_was_chosen_changes_the_next_choice_unless_there_is_no_state(state: State) -> None:
    logp = small(state).step_log_probs(batch(), torch.tensor([[0, 2], [1, 2], [0, 3], [1, 3]]).expand(3, -1, -1))[0][
        ..., 1
    ]
    odds = (logp[:, 0] - logp[:, 2]) - (logp[:, 1] - logp[:, 3])  # of 2 against 3, after 0 against after 1
    assert (odds.abs().max() < 1e-4) == (state == "none")


def test_a_padded_pool_is_the_shorter_pool() -> None:
    selector, b = small(), batch()
    mask = torch.tensor([True, True, True, False, False]).expand(3, 5)
    long, short = (
        replace(b, pool_mask=mask),
        batch_of(b.question.rows, b.candidates.rows[:, :3], b.similarity[:, :3]),
    )
    sequences = all_sequences(3, 3, 2)
    torch.testing.assert_close(selector.log_probs(long, sequences), selector.log_probs(short, sequences))
    positions, logp = selector.beam_search(long, 2, 8)
    assert torch.isinf(logp[:, 6:]).all() and positions[:, :6].max() < 3
    assert selector.sample(long, 3, 20, 5.0, [torch.Generator().manual_seed(i) for i in range(3)]).max() < 3


def test_batch_make_up_changes_nothing() -> None:
    selector, b, sequences = small(), batch(), all_sequences(3, 5, 2)
    alone = torch.cat([selector.log_probs(b.rows(i, i + 1), sequences[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(alone, selector.log_probs(b, sequences), atol=1e-5, rtol=1e-5)


def test_samples_follow_the_probabilities_and_hold_no_repeats() -> None:
    selector, b, sequences = small(), batch(questions=1, pool=3), all_sequences(1, 3, 2)
    drawn = selector.sample(b, 2, 4000, 1.0, [torch.Generator().manual_seed(0)])
    assert (drawn[..., 0] != drawn[..., 1]).all()
    counted = (drawn[0, :, None] == sequences[0]).all(-1).float().mean(0)
    torch.testing.assert_close(counted, selector.log_probs(b, sequences)[0].exp().detach(), atol=0.03, rtol=0)
    assert torch.equal(drawn, selector.sample(b, 2, 4000, 1.0, [torch.Generator().manual_seed(0)]))


def test_inputs_are_standardized_by_the_train_rows() -> None:
    selector, b = small(), batch()
    before = selector.log_probs(b, all_sequences(3, 5, 1))
    selector.fit_standardizer(b.question.rows, b.candidates.rows.flatten(0, 1))
    fitted = selector.log_probs(b, all_sequences(3, 5, 1))
    assert not torch.allclose(before, fitted)
    scaled = batch_of(b.question.rows * 50 + 7, b.candidates.rows * 50 + 7, b.similarity)
    selector.fit_standardizer(scaled.question.rows, scaled.candidates.rows.flatten(0, 1))
    torch.testing.assert_close(selector.log_probs(scaled, all_sequences(3, 5, 1)), fitted, atol=1e-3, rtol=1e-3)


def test_mistakes_are_one_line() -> None:
    selector, b = small(), batch()
    with pytest.raises(DataError, match="6 shots were requested from a pool of 5"):
        selector.beam_search(b, 6, 2)
    other = FeatureWidths(image=2, text=3)
    with pytest.raises(
        DataError, match=r"columns image 2, text 3, state 0, answer 3, .* for image 3, text 3, state 0, "
    ):
        selector.encode(batch_of(b.question.rows[:, :5], b.candidates.rows[..., :8], b.similarity, other))
    with pytest.raises(ValueError, match="multiple of heads"):
        PointerSelector(width=10, heads=4)


def test_cosines_by_hand() -> None:
    """Columns [image 2; text 2; state 1; answer 2]: a row of each pair, worked out by hand."""
    query = torch.tensor([[1.0, 0.0, 0.6, 0.8, -1.0]])
    candidate = torch.tensor([[[0.0, 1.0, 0.8, 0.6, 1.0, 0.6, -0.8]]])
    nothing = torch.zeros(1, 1, 2)
    found = cosine_features(batch_of(query, candidate, nothing, FeatureWidths(2, 2, 1)))
    # image-image, text-text, text-answer, image-answer, image-text, text-image, state-state
    torch.testing.assert_close(found[0, 0], torch.tensor([0.0, 0.96, -0.28, 0.6, 0.8, 0.8, -1.0]))
    stateless = batch_of(query[:, :4], candidate[..., [0, 1, 2, 3, 5, 6]], nothing, FeatureWidths(2, 2))
    torch.testing.assert_close(cosine_features(stateless)[0, 0], torch.tensor([0.0, 0.96, -0.28, 0.6, 0.8, 0.8, 0.0]))
    # An image of three columns and a text of two are of two encoders: their cosine means nothing.
    apart = batch_of(torch.ones(1, 5), torch.ones(1, 1, 7), nothing, FeatureWidths(3, 2))
    assert cosine_features(apart)[0, 0].tolist() == [3, 2, 2, 0, 0, 0, 0]


def test_pairwise_learns_which_similarity_counts() -> None:
    """Right is the demonstration with the nearest state, whatever image and text say: the state alone tells."""
    draw = torch.Generator().manual_seed(0)
    query, rows = (F.normalize(torch.randn(*size, generator=draw), dim=-1) for size in ((400, 12), (400, 8, 16)))
    widths = FeatureWidths(image=4, text=4, state=4)

    def inputs(index: Tensor) -> Batch:
        return batch_of(query[index], rows[index], torch.zeros(len(index), 8, 2), widths)

    right = cosine_features(inputs(torch.arange(400)))[..., 6].argmax(1)
    groups = TrainingGroups(right[:, None, None], torch.ones(400, 1, dtype=torch.bool), torch.zeros(400, 1))
    torch.manual_seed(0)
    policy = PairwiseSelector(width=32, dropout=0.1).policy(widths)
    taught = TrainingData(groups.rows(torch.arange(300)), inputs)
    SftTrainer(epochs=10, learning_rate=5e-3).fit(policy, taught, FitRun("sft", 0))
    chosen = policy.beam_search(inputs(torch.arange(300, 400)), 1, 1)[0][:, 0, 0]
    assert (chosen == right[300:]).float().mean() > 0.8  # chance: 0.125
    three = policy.beam_search(inputs(torch.tensor([0])), 3, 2)[0][0, 0]
    ranked = policy.encode(inputs(torch.tensor([0]))).prior[0].argsort(descending=True)
    assert three.tolist() == ranked[:3].tolist()  # best first, whatever was chosen before


class MatchingTask:
    """The demo world in miniature: right is who shares the topic, and the one attribute that this topic asks about.

    Images show a shape (8), a colour (6) and, above all, a background (4) in rotated axes with noise; a topic's parity
    says whether shape or colour counts.
    """

    widths = FeatureWidths(image=32, text=32)

    def __init__(self, questions: int, pool: int = 32, bank: int = 600) -> None:
        g = torch.Generator().manual_seed(0)
        axes = [torch.linalg.qr(torch.randn(32, 32, generator=g))[0] for _ in range(3)]
        words = torch.randint(0, 20, (6, 8), generator=g)

        def rows(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            topic, shape, colour, background = (torch.randint(0, m, (n,), generator=g) for m in (6, 8, 6, 4))
            key = torch.where(topic % 2 == 0, shape, colour)
            image = F.one_hot(shape, 32) + F.one_hot(8 + colour, 32) + 1.5 * F.one_hot(14 + background, 32)
            image = F.normalize(image @ axes[0] + 0.12 * torch.randn(n, 32, generator=g), dim=1)
            return image, axes[1][topic], axes[2][words[topic, key]], topic * 8 + key

        image, text, _, what = rows(questions)
        bank_image, bank_text, bank_answer, bank_what = rows(bank)
        match = what[:, None] == bank_what
        self.pools = (torch.rand(questions, bank, generator=g)).topk(pool, dim=1).indices
        for row in (~match.gather(1, self.pools).any(1)).nonzero().flatten().tolist():
            self.pools[row, int(torch.randint(0, pool, (1,), generator=g))] = match[row].nonzero()[0, 0]
        self.query = torch.cat([image, text], 1)
        self.bank = torch.cat([bank_image, bank_text, bank_answer], 1)
        self.right = match.gather(1, self.pools)  # (N, K)

    def inputs(self, rows: Tensor) -> Batch:
        query, candidates = self.query[rows], self.bank[self.pools[rows]]
        products = candidates[..., :64] * query[:, None]
        similarity = torch.stack([products[..., :32].sum(-1), products[..., 32:].sum(-1)], -1)
        return batch_of(query, candidates, similarity, self.widths)

    def data(self, start: int, stop: int) -> TrainingData:
        right = self.right[start:stop]
        positions = right.float().topk(3, dim=1).indices  # the right ones first
        groups = TrainingGroups(positions[..., None], right.gather(1, positions), torch.zeros(positions.shape))
        return TrainingData(groups, lambda rows: self.inputs(start + rows))


TWENTY = SftTrainer(epochs=20, learning_rate=2e-3)


def test_it_learns_the_matching_rule_from_few_questions() -> None:
    task = MatchingTask(1000)
    torch.manual_seed(0)
    selector = PointerSelector(width=64).policy(MatchingTask.widths)
    selector.fit_standardizer(task.query[:500], task.bank)
    TWENTY.fit(selector, task.data(0, 430), FitRun("sft", 0))
    unseen = task.inputs(torch.arange(500, 1000))
    positions, _ = selector.beam_search(unseen, 1, 1)
    learned = task.right[500:].gather(1, positions[:, 0]).float().mean()
    nearest = task.right[500:].gather(1, unseen.similarity.sum(-1).argmax(1, keepdim=True)).float().mean()
    assert nearest < 0.6 and learned > 0.85, (nearest, learned)


def test_lever_lm_learns_the_matching_rule_too() -> None:
    task = MatchingTask(1000)
    torch.manual_seed(0)
    policy = LeverLmSelector(width=64).policy(MatchingTask.widths)
    policy.fit_standardizer(task.query[:500], task.bank)
    TWENTY.fit(policy, task.data(0, 430), FitRun("sft", 0))
    unseen = task.inputs(torch.arange(500, 1000))
    learned = task.right[500:].gather(1, policy.beam_search(unseen, 1, 1)[0][:, 0]).float().mean()
    assert learned > 2 * task.right[500:].float().mean(), learned  # far above chance, if below the pointer network


@pytest.mark.parametrize("kind", [PointerSelector, LeverLmSelector])
def test_it_learns_when_to_stop(kind: Callable[..., TrainableSelector]) -> None:
    """Questions whose first feature is positive are right with one demonstration, the others with two only."""
    g = torch.Generator().manual_seed(0)
    n, pool = 640, 5
    query, candidates = torch.randn(n, 6, generator=g), torch.randn(n, pool, 9, generator=g)
    similarity = torch.zeros(n, pool, 2)
    easy = query[:, 0] > 0
    sequences = torch.tensor([[-1, -1], [0, -1], [0, 1]]).expand(n, -1, -1)
    rewards = torch.stack([torch.zeros(n), torch.where(easy, 1.0, 0.0), torch.ones(n)], dim=1)
    mask = torch.ones(n, 3, dtype=torch.bool)

    def inputs(rows: Tensor) -> Batch:
        return batch_of(query[rows], candidates[rows], similarity[rows])

    torch.manual_seed(0)
    policy = kind(width=32, heads=2, stop=True, dropout=0.0).policy(WIDTHS)
    data = TrainingData(TrainingGroups(sequences[:600], mask[:600], rewards[:600]), inputs)
    # One candidate a length: only across lengths is there anything to compare.
    trainer = RceTrainer(epochs=40, learning_rate=3e-3, within="question", stop=StopSettings(cost=0.4))
    trainer.fit(policy, data, FitRun("rce", 0))
    lengths = torch.tensor([len(row) for row in policy.adaptive(inputs(torch.arange(600, 640)), 2, 1)])
    right = (lengths == torch.where(easy[600:], 1, 2)).float().mean()
    assert right >= 0.75, (right, lengths)  # always one, or always two, would be half right


@pytest.mark.parametrize("policy", [small(stop=True), small("gate", stop=True), lever_lm(stop=True)])
def test_what_stopping_learns_does_not_reach_the_choices(policy: Policy) -> None:
    policy.zero_grad()
    policy.step_log_probs(batch(), all_sequences(3, 5, 2))[1].sum().backward()
    moved = {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved and all(name.startswith("stop_head.") for name in moved)


def test_a_selector_that_cannot_stop_says_so() -> None:
    with pytest.raises(DataError, match="no learned stop"):
        small().adaptive(batch(), 2, 1)
    with pytest.raises(ValueError, match="stop needs a state"):
        PointerSelector(state="none", stop=True)
