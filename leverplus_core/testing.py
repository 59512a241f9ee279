"""For plugin authors: the obligations of the contracts as checks, and a tiny set of records to try a part on.

    from leverplus_core.testing import check_reward

    def test_my_reward_keeps_the_contract() -> None:
        check_reward(MyReward())

A check raises AssertionError with the obligation that the part breaks. Checks need nothing but the part, except an
encoder that reads images, which is given pictures by `tiny_pictures(folder)`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from leverplus_core.errors import DataError
from leverplus_core.plugins.calls import brief
from leverplus_core.plugins.checks import CHECKS, Breach, class_defect
from leverplus_core.plugins.contracts import (
    MEASUREMENTS,
    Balancer,
    Bank,
    Dataset,
    Encoder,
    Features,
    Floats,
    Measurement,
    Model,
    Part,
    Query,
    Reward,
    Sampler,
    SupportsHiddenStates,
    SupportsLookahead,
    allowed,
)
from leverplus_core.recipes.settings import PromptSettings
from leverplus_core.records import AnswerLogprob, Candidate, Decoding, Demonstration, Ids, Image, Prompt, Question
from leverplus_core.scoring.prompt import build_prompt
from leverplus_core.selector.base import BaselineSelector, EvalSet, FeatureWidths, Selector, TrainableSelector
from leverplus_core.training.base import FitRun, Judge, Trainer

if TYPE_CHECKING:
    import torch

    from leverplus_core.selector.policy import Batch, Encoded
    from leverplus_core.training.base import FitResult

CONTRACTS: dict[str, type[Part]] = {
    "dataset": Dataset, "model": Model, "encoder": Encoder, "sampler": Sampler, "selector": Selector,
    "balancer": Balancer, "reward": Reward, "trainer": Trainer,
}  # fmt: skip
COLORS = ("red", "green", "blue", "yellow", "black", "white")
TOLERANCE = 1e-4  # float32, whatever the batch


def tiny_pictures(folder: Path, count: int = 6, side: int = 64) -> list[Image]:
    """`count` pictures of one color each with a caption, written to `folder` as PNG of `side` x `side` pixels."""
    from PIL import Image as Picture

    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for i in range(count):
        color = COLORS[i % len(COLORS)]
        path = folder / f"picture{i}.png"
        Picture.new("RGB", (side, side), color).save(path)
        images.append(Image(id=f"i{i}", path=str(path), caption=f"A picture that is {color}."))
    return images


def tiny_questions(images: Sequence[Image]) -> list[Question]:
    """One question per image, with ten answers."""
    return [
        Question(f"q{i}", f"What colour is this, number {i}?", image, (COLORS[i % len(COLORS)],) * 10)
        for i, image in enumerate(images)
    ]


def tiny_demonstrations(questions: Sequence[Question]) -> list[Demonstration]:
    """Each question shown with its answer."""
    return [Demonstration(q.id, q.text, q.image, q.answers[0]) for q in questions]


def tiny_bank(size: int = 24, dim: int = 8, seed: int = 0) -> tuple[Query, Bank]:
    """A question and a bank of `size` rows, of which row 0 is the question itself and rows 1 and 2 show its image."""
    draw = np.random.default_rng(seed)
    pictures = [Image("asked" if i < 3 else f"i{i}", caption=f"picture {i}") for i in range(size)]
    demonstrations = [Demonstration(f"q{i}", f"question {i}?", image, "yes") for i, image in enumerate(pictures)]
    image, text, answer, state = (_unit_rows(draw, size, dim) for _ in range(4))
    query = Query(Question("q0", "question 0?", pictures[0], ("yes",) * 10), image[0], text[0], state[0])
    return query, Bank(demonstrations, Features(image, text, answer, state))


def tiny_groups(seed: int = 0) -> list[list[Candidate]]:
    """Groups of candidates: none, one, mixed, all correct, all wrong, and equal in every measurement."""
    draw = np.random.default_rng(seed)

    def candidate(i: int, accuracy: float) -> Candidate:
        return Candidate(
            question_id="q0",
            demonstrations=(f"d{i}", f"d{i + 1}"),
            source="beam",
            raw_text=f"answer {i}",
            prediction=f"answer {i}",
            accuracy=accuracy,
            correct=accuracy >= 0.5,
            logprob=-float(draw.exponential()),
            info_score=float(draw.normal(scale=0.1)),
            text_similarity=1.0 if accuracy == 1.0 else float(draw.uniform(0, 0.9)),
        )

    mixed = [candidate(i, float(draw.choice([0.0, 0.3, 0.6, 1.0]))) for i in range(14)]
    equal = [replace(mixed[0], demonstrations=(f"d{i}",)) for i in range(6)]
    right, wrong = ([candidate(i, accuracy) for i in range(5)] for accuracy in (1.0, 0.0))
    return [[], mixed[:1], mixed, right, wrong, equal]


def check_part(part: Part) -> None:
    """Every part has a first line for users and frozen settings that survive JSON, and refuses unknown settings."""
    name = type(part).__name__
    assert "__doc__" in vars(type(part)) and (type(part).__doc__ or "").strip(), f"{name} needs a docstring"
    settings = json.loads(json.dumps(part.model_dump(mode="json"), allow_nan=False))
    assert type(part).model_validate(settings) == part, f"{name}'s settings must survive JSON"
    again = type(part).model_validate(settings).identity()
    assert json.dumps(part.identity(), allow_nan=False) == json.dumps(again), f"{name}.identity() must be repeatable"
    assert _raises(ValidationError, lambda: type(part).model_validate({**settings, "no_such_setting": 1})), (
        f"{name} must refuse a setting it does not know"
    )
    for key in type(part).model_fields:
        assert _raises(ValidationError, partial(setattr, part, key, None)), f"{name} must be frozen"
    for kind, contract in CONTRACTS.items():
        if isinstance(part, contract):
            _returns(kind, part, "identity", part.identity())
            assert not (wrong := class_defect(kind, type(part))), f"{name}: {wrong}"


def _returns(kind: str, part: Part, method: str, found: object, **given: object) -> None:
    """Hold a result to what a run holds third-party parts to: these are the same checks."""
    try:
        CHECKS[kind][method](part, given, found)
    except Breach as breach:
        of = f" of question {breach.question}" if breach.question else ""
        raise AssertionError(
            f"{method}(){of} returned {brief(found)}: {breach.wrong}; it must return {breach.must}"
        ) from None


def check_sampler(part: Sampler) -> None:
    """`k` distinct rows, never the question nor its image, from `rng` alone; DataError when there are too few."""
    check_part(part)
    small = part.model_copy(update={"k": 5})
    query, bank = tiny_bank()
    fair = {int(row) for row in allowed(query, bank)}
    np.random.seed(1)
    first = small.pool(query, bank, np.random.default_rng(1))
    assert len(first) == 5 and all(isinstance(row, int) for row in first), f"a pool is k row numbers, not {first}"
    assert len(set(first)) == 5, f"a pool has no repeats: {first}"
    assert set(first) <= fair, f"a pool never has the question itself nor its image: {sorted(set(first) - fair)}"
    _returns("sampler", small, "pool", first, query=query, bank=bank)
    _returns("sampler", small, "blocks", small.blocks())
    np.random.seed(7)  # a part that reads this global state would now draw others
    assert first == small.pool(query, bank, np.random.default_rng(1)), "a pool depends on rng alone"
    several = small.pools([query, query], bank, [np.random.default_rng(seed) for seed in (1, 3)])
    alone = [first, small.pool(query, bank, np.random.default_rng(3))]
    assert [list(rows) for rows in several] == alone, "`pools` draws what `pool` draws for each"
    whole = part.model_copy(update={"k": len(fair)}).pool(query, bank, np.random.default_rng(2))
    assert set(whole) == fair, "with k equal to what is allowed, the pool is all that is allowed"
    if not small.blocks():
        blind = Bank(bank.demonstrations, Features(*(np.zeros((0, 0), np.float32),) * 2))
        assert first == small.pool(query, blind, np.random.default_rng(1)), "blocks() is empty, yet features count"
    greedy = part.model_copy(update={"k": len(fair) + 1})
    empty = Bank([], Features(*(np.zeros((0, 8), np.float32),) * 4))
    for what, sampler, source in (("fewer than k rows", greedy, bank), ("an empty bank", small, empty)):
        assert _raises(DataError, partial(sampler.pool, query, source, np.random.default_rng(1))), (
            f"{what} must raise DataError"
        )


def check_balancer(part: Balancer) -> None:
    """A subset of the group without repeats, from `rng` alone, with or without measurements; `shortfall` is a line."""
    check_part(part)
    groups = tiny_groups()
    unmeasured = [_without(candidate, *MEASUREMENTS) for candidate in groups[2]]
    for group in (*groups, unmeasured):
        np.random.seed(1)
        picked = part.select(group, np.random.default_rng(1))
        assert all(candidate in group for candidate in picked), "only candidates of the group can be selected"
        assert len({c.demonstrations for c in picked}) == len(picked), "a candidate is selected once"
        _returns("balancer", part, "select", picked, group=group)
        np.random.seed(7)  # a part that reads this global state would now select others
        assert picked == part.select(group, np.random.default_rng(1)), "the same rng must select the same candidates"
        shortfall: object = part.shortfall(group, picked)
        assert isinstance(shortfall, str), f"shortfall() is text, not {shortfall!r}"
        assert shortfall == " ".join(shortfall.split()), f"shortfall() is one line, not {shortfall!r}"
    needed = part.needs()
    assert needed <= MEASUREMENTS, f"needs() has {sorted(needed - MEASUREMENTS)}, which are no measurements"


def check_reward(part: Reward) -> None:
    """Finite, one per candidate in order, independent of the group's order; better in everything is never less.

    A measurement that is None and read raises DataError that names it and the question; nothing else is raised. One
    that `needs()` does not name is not read.
    """
    check_part(part)
    for group in tiny_groups():
        rewards = part.compute(group)
        assert len(rewards) == len(group), f"one reward per candidate: {len(rewards)} for {len(group)}"
        assert all(math.isfinite(reward) for reward in rewards), f"rewards must be finite: {rewards}"
        _returns("reward", part, "compute", rewards, group=group)
        order = np.random.default_rng(3).permutation(len(group))
        shuffled = part.compute([group[i] for i in order])
        expected = [rewards[i] for i in order]
        assert np.allclose(shuffled, expected, rtol=0, atol=1e-9), "the group's order must not matter"
    worse = replace(
        tiny_groups()[4][0], accuracy=0.0, correct=False, logprob=-3.0, info_score=-0.1, text_similarity=0.1
    )
    better = replace(
        worse, demonstrations=("d9",), accuracy=1.0, correct=True, logprob=-0.1, info_score=0.3, text_similarity=1.0
    )
    low, high = part.compute([worse, better])
    assert high >= low, "higher is better: a candidate better in every measurement got less"
    for name in sorted(MEASUREMENTS):
        for group in tiny_groups()[1:]:
            blank = [_without(candidate, name) for candidate in group]
            try:
                rewards = part.compute(blank)
            except DataError as error:
                named = name in str(error) and group[0].question_id in str(error)
                assert named, f"the error must name the question and {name}: {error}"
            except Exception as error:
                raise AssertionError(f"{name} is None: {error!r} rather than a DataError") from error
            else:
                assert rewards == part.compute(group), (
                    f"{name} is read: None must raise a DataError, not count as a value"
                )
    needed = part.needs()
    assert needed <= MEASUREMENTS, f"needs() has {sorted(needed - MEASUREMENTS)}, which are no measurements"
    for group in tiny_groups():
        bare = [_without(candidate, *(MEASUREMENTS - needed)) for candidate in group]
        try:
            assert part.compute(bare) == part.compute(group), "a measurement that needs() does not name is read"
        except DataError as error:
            raise AssertionError(f"a measurement that needs() does not name is read: {error}") from error


def check_encoder(part: Encoder, images: Sequence[Image], model: Model | None = None) -> None:
    """float32 unit rows, one per input in order, the same in any batch. `model` is for parts with `needs_model`."""
    check_part(part)
    used = model if part.needs_model else None
    assert not part.needs_model or used is not None, "needs_model is set: give check_encoder a model"
    texts = ["What is this?", "red", "a much longer question, with many more words than the other two?"]
    _check_rows("texts", lambda rows: part.texts([texts[i] for i in rows], used), len(texts))
    _check_rows("images", lambda rows: part.images([images[i] for i in rows], used), len(images))
    _returns("encoder", part, "texts", part.texts(texts, used), texts=texts)
    _returns("encoder", part, "images", part.images(images, used), images=images)


def check_selector(part: TrainableSelector) -> None:
    """Probabilities sum to 1, whatever the batch; a shuffled pool gives the shuffled answer; beams hold no repeats."""
    import torch

    from leverplus_core.selector.policy import Batch, Blocks

    check_part(part)
    torch.manual_seed(0)
    widths = FeatureWidths(image=3, text=3)
    policy = part.policy(widths).eval()
    draw = torch.Generator().manual_seed(1)
    query, rows, near = (torch.randn(*size, generator=draw) for size in ((3, 6), (3, 4, 9), (3, 4, 2)))
    question = Blocks(query, widths.question)
    batch = Batch(question, Blocks(rows, widths.candidate), near)
    pairs = torch.tensor(list(permutations(range(4), 2))).expand(3, -1, -1)
    with torch.no_grad():
        choices = policy.step_log_probs(batch, pairs)[0].sum(-1)
        assert torch.allclose(choices.exp().sum(1), torch.ones(3), atol=TOLERANCE), "probabilities must sum to 1"
        alone = torch.cat([policy.step_log_probs(batch.rows(i, i + 1), pairs[:1])[0].sum(-1) for i in range(3)])
        assert torch.allclose(alone, choices, atol=TOLERANCE), "a question's probabilities depend on the batch"
        order = torch.tensor([2, 0, 3, 1])
        shuffled = Batch(question, Blocks(rows[:, order], widths.candidate), near[:, order])
        turned = policy.step_log_probs(shuffled, order.argsort()[pairs])[0].sum(-1)
        assert torch.allclose(turned, choices, atol=TOLERANCE), "a shuffled pool must give the shuffled answer"
    positions, _ = policy.beam_search(batch, 3, 4)
    assert all(len(set(row)) == 3 for beams in positions.tolist() for row in beams), "a sequence has no repeats"


class _NeverRight:
    """Measures without a model: no answer is right, and longer sequences are less probable. Notes what is asked."""

    def __init__(self) -> None:
        self.asked_logprobs: set[tuple[Question, Ids]] = set()
        self.asked_answers: set[tuple[Question, Ids]] = set()

    def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[AnswerLogprob]:
        self.asked_logprobs.update(rows)
        return [AnswerLogprob(-1.0 - len(ids), 1) for _, ids in rows]

    def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[tuple[str, str, float]]:
        self.asked_answers.update(rows)
        return [("no", "no", 0.0) for _ in rows]


def check_baseline(part: BaselineSelector) -> None:
    """Distinct demonstrations of the right number, none with the question's image, whatever the other questions.

    It asks no more to select than `cost` says: each prompt counts once.
    """
    check_part(part)
    query, bank = tiny_bank()
    questions = [query.question, Question("x1", "another question?", Image("elsewhere"), ("yes",) * 10)]
    train = [Question(f"t{i}", f"question {i}?", bank.demonstrations[i].image, ("yes",) * 10) for i in range(3, 9)]
    pool = [bank.demonstrations[row].id for row in allowed(query, bank)][:6]
    rows = dict(zip(("q0", "x1"), _unit_rows(np.random.default_rng(1), 2, 8), strict=True))

    def eval_set(asked: Sequence[Question]) -> EvalSet:
        similarity = {q.id: np.linspace(1, 0, len(pool), dtype=np.float32) for q in asked}
        own = np.stack([rows[q.id] for q in asked])
        blocks = dict.fromkeys(("image", "text", "state"), similarity)
        return EvalSet(
            asked, {q.id: pool for q in asked}, blocks, Features(own, own, state=own), bank, "append", 0, train
        )

    np.random.seed(1)
    measure = _NeverRight()
    both = part.select(eval_set(questions), (1, 2), measure)
    np.random.seed(7)  # a part that reads this global state would now select others
    alone = part.select(eval_set(questions[:1]), (1, 2), _NeverRight())
    counts = part.shot_counts((1, 2))
    assert sorted(both) == sorted(counts), f"select() gives {sorted(both)} shots, shot_counts() says {sorted(counts)}"
    shows = {d.id: d.image.id for d in bank.demonstrations}
    _returns("selector", part, "shot_counts", counts)
    _returns("selector", part, "blocks", part.blocks())
    for n, selected in both.items():
        assert len(selected) == len(questions), f"one sequence per question, not {len(selected)}"
        for question, ids in zip(questions, selected, strict=True):
            assert len(ids) == len(set(ids)), f"{n} distinct demonstrations, not {ids}"
            assert len(ids) == n or (part.shows_fewer and len(ids) < n), f"{n} distinct demonstrations, not {ids}"
            assert all(d in shows for d in ids), f"demonstrations of the bank, not {ids}"
            assert all(shows[d] != question.image.id for d in ids), "a demonstration shows the question's own image"
        assert selected[0] == alone[n][0], "a question's demonstrations depend on seed and question alone"
    _returns("selector", part, "select", both, eval_set=eval_set(questions), shots=(1, 2))
    cost = part.cost((1, 2), len(pool))
    _returns("selector", part, "cost", cost)
    assert set(counts) <= set(cost.answers), "cost() has an answer for each number of shots"
    for what, asked, each, once in (
        ("log-probabilities", measure.asked_logprobs, cost.logprobs, cost.once_logprobs),
        ("answers", measure.asked_answers, cost.answers, cost.once),
    ):
        for n, count in Counter(len(ids) for _, ids in asked).items():
            planned = len(questions) * each.get(n, 0) + once.get(n, 0)
            assert count <= planned, f"cost() allows {planned} {what} of {n} demonstrations, select() asks {count}"
        assert all(shows[d] != q.image.id for q, ids in asked for d in ids), "what is measured shows its own image"


def check_trainer(part: Trainer) -> None:
    """A fit ends with finite weights and tells its curve; it is the same every time, also when it was killed."""
    import torch

    from leverplus_core.selector.policy import Batch, Blocks, Encoded, Policy
    from leverplus_core.training.tensors import TrainingData, TrainingGroups
    from leverplus_core.training.trainer import candidate_log_probs, expected_reward

    check_part(part)
    widths = FeatureWidths(image=2, text=2)

    class Linear(Policy):
        def __init__(self) -> None:
            super().__init__(_NoSelector(), widths)
            self.score = torch.nn.Linear(6, 1)

        def encode(self, batch: Batch) -> Encoded:
            prior = self.score(batch.candidates.rows).squeeze(-1)
            nothing = prior.new_zeros(*prior.shape, 1)
            return Encoded(nothing[:, 0], nothing, nothing, prior)

        def scores(self, encoded: Encoded, state: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
            return encoded.prior[:, None].expand_as(chosen).masked_fill(chosen, -torch.inf)

        def next_state(self, encoded: Encoded, state: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            return state

    draw = torch.Generator().manual_seed(0)
    question = torch.randn(6, 4, generator=draw)
    candidates = torch.randn(6, 3, 6, generator=draw)

    def inputs(at: torch.Tensor) -> Batch:
        shown = Blocks(candidates[at], widths.candidate)
        return Batch(Blocks(question[at], widths.question), shown, torch.zeros(len(at), 3, 2))

    sequences = torch.tensor([[[0], [1], [2]]]).expand(6, -1, -1)
    rewards = torch.tensor([[1.0, 0.0, 0.0]]).expand(6, -1)
    groups = TrainingGroups(sequences, torch.ones(6, 3, dtype=torch.bool), rewards, torch.ones(6, dtype=torch.bool))
    data = TrainingData(groups, inputs)
    short = part.model_copy(update={"epochs": 2})

    def fitted(run: FitRun, seed: int) -> tuple[FitResult, list[torch.Tensor]]:
        torch.manual_seed(0)
        policy = Linear()
        torch.manual_seed(seed)  # a trainer that draws from this global state would now train otherwise
        result = short.fit(policy, data, run)
        return result, [p.detach().clone() for p in policy.parameters()]

    judge = Judge("reward", lambda policy: expected_reward(*candidate_log_probs(policy, data), groups).tolist())

    def kill(epoch: int, metrics: dict[str, float]) -> None:
        if epoch == 1:
            raise _Killed

    told: list[int] = []
    result, weights = fitted(FitRun("check", 0, judge, on_epoch=partial(_note, told)), seed=1)
    assert [epoch for epoch, _ in result.curve] == told, "every row of the curve is told to on_epoch"
    assert all(bool(torch.isfinite(p).all()) for p in weights), "weights must stay finite"
    _returns("trainer", short, "fit", result, policy=Linear())
    again = fitted(FitRun("check", 0, judge), seed=7)[1]
    assert all(map(torch.equal, weights, again)), "the same fit must give the same weights"
    with TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "fit.pt"
        with suppress(_Killed):
            fitted(FitRun("check", 0, judge, checkpoint, on_epoch=kill), seed=1)
        resumed = fitted(FitRun("check", 0, judge, checkpoint), seed=7)[1]
    assert all(map(torch.equal, weights, resumed)), "a fit that was killed must end with the same weights"


class _Killed(Exception):
    """Ends a fit in the middle."""


def _note(told: list[int], epoch: int, metrics: dict[str, float]) -> None:
    told.append(epoch)


class _NoSelector(TrainableSelector):
    """Stands for the selector of the policy that `check_trainer` trains."""


def check_model(part: Model, images: Sequence[Image]) -> None:
    """Results do not depend on the batch, the order or the past; an unreadable image raises DataError.

    `images` need a path and a caption, at least three. Prompts of zero, one and two demonstrations are mixed. A model
    that supports no log-probabilities is held to its answers, one that takes fewer beams is asked with one.
    """
    check_part(part)
    questions = tiny_questions(images[:3])
    demonstrations = tiny_demonstrations(questions)
    settings = PromptSettings()
    shown = [[], demonstrations[1:2], demonstrations[:2]]
    prompts = [build_prompt(d, q, settings) for d, q in zip(shown, questions, strict=True)]
    answers = ["red", "green", "red"]
    scores, most, greedy = part.supports_logprob(), part.most_beams(), Decoding(max_new_tokens=3, num_beams=1)
    _returns("model", part, "supports_logprob", scores)
    _returns("model", part, "most_beams", most)
    if scores:
        _check_logprob(part, prompts, answers)
    for decoding in (Decoding(max_new_tokens=3), greedy):
        if most is not None and decoding.num_beams > most:
            continue
        texts = part.generate(prompts, decoding)
        _returns("model", part, "generate", texts, prompts=prompts)
        assert texts == [part.generate([p], decoding)[0] for p in prompts], "generate depends on the batch"
        assert texts == part.generate(prompts[::-1], decoding)[::-1], "generate depends on the order of prompts"
    assert part.generate([], greedy) == [], "no prompts, no results"
    if isinstance(part, SupportsHiddenStates):
        _check_rows("states", lambda rows: part.last_hidden_state([prompts[i] for i in rows]), len(prompts), unit=False)
    lost = Image("lost", path="no/such/picture.png")
    unreadable: list[Prompt] = [build_prompt([], replace(questions[0], image=lost), settings)]
    asked = partial(part.logprob, unreadable, ["red"]) if scores else partial(part.generate, unreadable, greedy)
    assert _raises(DataError, asked), "an unreadable image must raise DataError"


def _check_logprob(part: Model, prompts: Sequence[Prompt], answers: Sequence[str]) -> None:
    batch = part.logprob(prompts, answers)
    assert len(batch) == len(prompts), "one result per prompt"
    assert all(r.tokens >= 1 and r.sum <= 0 and math.isfinite(r.sum) for r in batch), f"not log-probabilities: {batch}"
    _returns("model", part, "logprob", batch, prompts=prompts, answers=answers)
    marked = part.logprob(prompts, answers, end_mark=True)
    for without, ended in zip(batch, marked, strict=True):
        assert ended.tokens == without.tokens + 1, "with an end mark an answer has one token more"
        assert ended.sum <= without.sum + TOLERANCE, "an answer that ends is at most as probable as its beginning"
    single = [part.logprob([p], [a])[0] for p, a in zip(prompts, answers, strict=True)]
    turned = part.logprob(prompts[::-1], answers[::-1])[::-1]
    for what, other in (("the batch", single), ("the order of prompts", turned)):
        worst = max(abs(a.sum - b.sum) for a, b in zip(batch, other, strict=True))
        assert worst <= TOLERANCE, f"logprob depends on {what}, by {worst:.2e}"
    assert part.logprob([], []) == [], "no prompts, no results"
    if isinstance(part, SupportsLookahead):
        part.expect(prompts, answers)
        ahead = [part.logprob(prompts[:1], answers[:1]), part.logprob(prompts, answers), part.logprob(prompts, answers)]
        worst = max(abs(a.sum - b.sum) for found in ahead for a, b in zip(found, batch, strict=False))
        assert worst <= TOLERANCE, f"logprob depends on what was expected, by {worst:.2e}"


def check_dataset(part: Dataset) -> None:
    """Unique ids, distinct splits, answers everywhere, demonstrations from train only, the same rows every time."""
    check_part(part)
    train, validation = part.questions("train"), part.questions("validation")
    demonstrations = part.demonstrations()
    assert train and validation and demonstrations, "no split is empty"
    _returns("dataset", part, "note", part.note())
    _returns("dataset", part, "expected_size", part.expected_size())
    asked = {question.id: question for question in train}
    for name, ids in (
        ("train", [q.id for q in train]),
        ("validation", [q.id for q in validation]),
        ("demonstrations", [d.id for d in demonstrations]),
    ):
        assert len(set(ids)) == len(ids), f"ids of {name} must be unique"
    assert not asked.keys() & {q.id for q in validation}, "train and validation questions must be distinct"
    assert all(any(q.answers) for q in (*train, *validation)), "every question needs an answer"
    for demonstration in demonstrations:
        assert demonstration.id in asked, f"demonstration {demonstration.id} is not of the train split"
        assert demonstration.answer in asked[demonstration.id].answers, f"{demonstration.id} shows a foreign answer"
    _returns("dataset", part, "questions", train, split="train")
    _returns("dataset", part, "questions", validation, split="validation")
    _returns("dataset", part, "demonstrations", demonstrations)
    images = {q.image.id: q.image for q in (*train, *validation)}.values()
    assert all(i.caption or (i.path and Path(i.path).is_file()) for i in images), "an image needs a file or a caption"
    again = type(part).model_validate(part.model_dump())
    assert list(again.questions("train")) == list(train), "the same settings must give the same rows"
    assert list(again.questions("validation")) == list(validation), "the same settings must give the same rows"
    assert list(again.demonstrations()) == list(demonstrations), "the same settings must give the same rows"


def _unit_rows(draw: np.random.Generator, size: int, dim: int) -> Floats:
    rows = draw.normal(size=(size, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _without(candidate: Candidate, *names: Measurement) -> Candidate:
    nothing: dict[str, Any] = dict.fromkeys(names)
    return replace(candidate, **nothing)


def _check_rows(what: str, encode: Callable[[Sequence[int]], Floats], count: int, unit: bool = True) -> None:
    rows = encode(range(count))
    assert rows.dtype == np.float32 and rows.ndim == 2 and len(rows) == count, f"{what}: float32 (N, D), one per input"
    lengths = np.linalg.norm(rows, axis=1)
    assert not unit or np.allclose(lengths, 1, atol=TOLERANCE), f"{what}: rows must have length 1"
    single = np.concatenate([encode([i]) for i in range(count)])
    turned = encode(range(count)[::-1])[::-1]
    assert np.allclose(rows, single, atol=TOLERANCE), f"{what}: a row depends on the batch"
    assert np.allclose(rows, turned, atol=TOLERANCE), f"{what}: a row depends on the order"


def _raises(expected: type[Exception], action: Callable[[], object]) -> bool:
    try:
        action()
    except expected:
        return True
    return False
