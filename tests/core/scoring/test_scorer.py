"""InfoScore and the beam search against a brute force that shares no code with them, on the demo model."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leverplus_core import metrics
from leverplus_core.errors import DataError, PromptError
from leverplus_core.plugins.contracts import Dataset, Model
from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.settings import BeamSettings, PromptSettings
from leverplus_core.records import AnswerLogprob, Decoding, Ids, Image, Prompt, Question
from leverplus_core.scoring.beam_search import beam_search, beam_search_cost, in_blocks
from leverplus_core.scoring.cache import CachedModel, ResponseCache
from leverplus_core.scoring.prompt import build_prompt
from leverplus_core.scoring.scorer import Scorer

PROMPT = PromptSettings(system="Answer with one word.")


@pytest.fixture(scope="module")
def world(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    cache = str(tmp_path_factory.mktemp("world"))
    return catalog.build("dataset", "demo_world", {"train": 40, "validation": 10, "cache": cache})


@pytest.fixture(scope="module")
def model(catalog: Catalog) -> Model:
    return catalog.build("model", "qwen2_5_vl", {"path": "demo"})


@pytest.fixture
def scorer(world: Dataset, model: Model, tmp_path: Path) -> Scorer:
    cached = CachedModel(lambda: model, model.identity, ResponseCache(tmp_path / "m.sqlite"))
    return Scorer(cached, {d.id: d for d in world.demonstrations()}, PROMPT, Decoding(2, 1, 0.0))


def _brute_probability(prompt: Prompt, answer: str, end: str = "") -> float:
    """Geometric-mean probability of the answer's tokens, token by token through transformers' plain forward pass.

    `end` is a control token that follows the answer.
    """
    import torch
    from PIL import Image as Pil
    from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

    import leverplus_demo
    from tools.demo_vlm.geometry import image_processor

    folder = Path(leverplus_demo.__file__).parent / "checkpoint"
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text, pictures = "", []
    for turn in prompt.turns:
        text += f"<|im_start|>{turn.role}\n"
        for part in turn.content:
            if isinstance(part, Image):
                pictures.append(Pil.open(part.path))
                text += "<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>"
            else:
                text += part
        text += "<|im_end|>\n"
    text += "<|im_start|>assistant\n"
    pixels = image_processor()(images=pictures, return_tensors="pt")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    logprobs = []
    for token in tokenizer(answer + end, add_special_tokens=False)["input_ids"]:
        now = torch.tensor([ids])
        kinds = (now == model.config.image_token_id).int()
        model.model.rope_deltas = None
        with torch.no_grad():
            logits = model(
                input_ids=now, attention_mask=torch.ones_like(now), mm_token_type_ids=kinds,
                pixel_values=pixels["pixel_values"], image_grid_thw=pixels["image_grid_thw"],
            ).logits  # fmt: skip
        logprobs.append(float(logits[0, -1].log_softmax(-1)[token]))
        ids = [*ids, token]
    return math.exp(sum(logprobs) / len(logprobs))


@pytest.mark.parametrize("order", ["prepend", "append"])
def test_info_scores_equal_brute_force(world: Dataset, scorer: Scorer, order: str) -> None:
    settings = PROMPT.model_copy(update={"order": order})
    scorer = Scorer(scorer.model, scorer.demonstrations, settings, scorer.decoding)
    question = world.questions("validation")[0]
    pool = [d.id for d in world.demonstrations()[:3]]
    kept = beam_search(scorer, [question], {question.id: pool}, BeamSettings(num_beams=6, shots=2))[question.id]
    answer = metrics.most_frequent(question.answers)

    def probability(ids: tuple[str, ...]) -> float:
        shown = [scorer.demonstrations[i] for i in ids]
        prompt = build_prompt(shown, question, settings)
        pictures = [part.id for part in prompt.turns[-1].content if isinstance(part, Image)]
        expected = [d.image.id for d in (shown if order == "append" else shown[::-1])] + [question.image.id]
        assert pictures == expected
        return _brute_probability(prompt, answer)

    bare = probability(())
    brute = {ids: probability(ids) - bare for ids in itertools.permutations(pool, 2)}
    assert {k.demonstrations for k in kept[1]} == set(brute)
    for k in kept[1]:
        assert k.score == pytest.approx(brute[k.demonstrations], abs=1e-4)
    assert [k.score for k in kept[1]] == sorted((k.score for k in kept[1]), reverse=True)


def test_all_true_answers_count_by_how_often_they_were_given(world: Dataset, scorer: Scorer) -> None:
    """sum_a w_a P(a) / sum_a w_a with w = min(count / 3, 1): here 1, 2/3, 1/3 and 1/3 for 4, 2, 1 and 1 annotators."""
    one = world.questions("validation")[0]
    question = replace(one, answers=("red", "Red", "red.", "red", "blue", "blue", "fox", " ", "the"))
    shown = (world.demonstrations()[0].id,)
    prompt = build_prompt([scorer.demonstrations[shown[0]]], question, PROMPT)
    red, blue, fox, the = (_brute_probability(prompt, answer) for answer in ("red", "blue", "fox", "the"))
    expected = (red + 2 / 3 * blue + 1 / 3 * fox + 1 / 3 * the) / (7 / 3)
    every = replace(scorer, reference="all")
    found = every.logprobs([(question, shown), (one, shown)])
    assert math.exp(found[0].mean) == pytest.approx(expected, rel=1e-3)
    assert found[1].mean == pytest.approx(every.logprobs([(one, shown)])[0].mean)
    assert every.prompts(question) == 5 and every.reference_prompts(question) == 4 and scorer.prompts(question) == 2
    assert replace(every, probabilities=False).prompts(question) == 1
    candidate = every.candidates([(question, shown, "beam")])[0]
    assert candidate.logprob == found[0].mean
    bare = every.logprobs([(question, ())])[0].mean
    assert candidate.info_score == pytest.approx(math.exp(found[0].mean) - math.exp(bare))


def test_the_end_mark_is_one_more_token_of_the_answer(world: Dataset, scorer: Scorer) -> None:
    question, shown = replace(world.questions("validation")[0], answers=("what",)), (world.demonstrations()[0].id,)
    prompt = build_prompt([scorer.demonstrations[shown[0]]], question, PROMPT)
    without = scorer.logprobs([(question, shown)])[0]
    ended = replace(scorer, end_mark=True).logprobs([(question, shown)])[0]
    assert math.exp(ended.mean) == pytest.approx(_brute_probability(prompt, "what", "<|im_end|>"), rel=1e-3)
    assert ended.tokens == without.tokens + 1 and ended.sum <= without.sum + 1e-4
    assert scorer.logprobs([(question, shown)])[0] == without  # the two do not share a row of the cache


def test_answers_alone_cost_no_log_probability(world: Dataset, scorer: Scorer) -> None:
    question, shown = world.questions("validation")[0], (world.demonstrations()[0].id,)
    row = [(question, shown, "beam")]
    quick = replace(scorer, probabilities=False).candidates(row)[0]
    assert scorer.model.calls == 1 and quick.logprob is None and quick.info_score is None
    whole = scorer.candidates(row)[0]
    assert scorer.model.calls == 3  # the log-probability, and that without demonstrations
    assert replace(whole, logprob=None, info_score=None) == quick


def test_a_beam_as_wide_as_the_pool_finds_the_best_sequence(world: Dataset, scorer: Scorer) -> None:
    questions = world.questions("validation")[:4]
    pools = {q.id: [d.id for d in world.demonstrations()[i : i + 5]] for i, q in enumerate(questions)}
    exhaustive = beam_search(scorer, questions, pools, BeamSettings(num_beams=20, shots=2))
    for question in questions:
        answer = scorer.logprobs([(question, ids) for ids in itertools.permutations(pools[question.id], 2)])
        base = math.exp(scorer.logprobs([(question, ())])[0].mean)
        assert exhaustive[question.id][1][0].score == pytest.approx(max(math.exp(a.mean) for a in answer) - base)


def test_a_pool_smaller_than_the_shots_is_an_error(world: Dataset, scorer: Scorer) -> None:
    question = world.questions("validation")[0]
    with pytest.raises(DataError, match="pool of 0"):
        beam_search(scorer, [question], {question.id: []}, BeamSettings())


@pytest.mark.parametrize(
    "settings",
    [
        BeamSettings(num_beams=2, shots=3),
        BeamSettings(num_beams=3, shots=2, expand_top_k=4),
        BeamSettings(num_beams=1, shots=2, expand_top_k=1),
    ],
)
def test_the_cost_of_a_search_is_what_it_measures(world: Dataset, scorer: Scorer, settings: BeamSettings) -> None:
    question = world.questions("validation")[0]
    asked: list[int] = []

    class Counting:
        def logprobs(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[AnswerLogprob]:
            asked.extend(len(ids) for _, ids in rows)
            return scorer.logprobs(rows, label)

        def answers(self, rows: Sequence[tuple[Question, Ids]], label: str = "") -> list[tuple[str, str, float]]:
            raise AssertionError("a search generates nothing")

    pool = [d.id for d in world.demonstrations()[:5]]
    beam_search(Counting(), [question], {question.id: pool}, settings)
    assert Counter(asked) == beam_search_cost(5, settings)


def test_nothing_is_computed_twice_and_chunks_change_nothing(
    world: Dataset, scorer: Scorer, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demonstrations = [d.id for d in world.demonstrations()[:6]]
    rows = [(q, (d,)) for q in world.questions("validation")[:3] for d in demonstrations] * 2
    first = scorer.logprobs(rows)
    assert scorer.model.calls == len(rows) // 2
    again = scorer.logprobs(rows)
    assert again == first and scorer.model.calls == len(rows) // 2
    monkeypatch.setattr("leverplus_core.scoring.chunks.SMALLEST", 5)
    cached = CachedModel(lambda: model, model.identity, ResponseCache(tmp_path / "other.sqlite"))
    other = Scorer(cached, scorer.demonstrations, PROMPT, scorer.decoding).logprobs(rows)
    assert [o.sum for o in other] == pytest.approx([f.sum for f in first], abs=1e-4)


def test_prompts_with_a_common_prefix_are_in_one_chunk(
    world: Dataset, scorer: Scorer, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever order a stage asks in: questions by demonstrations, or the other way round."""
    chunks: list[list[str]] = []

    def record(self: Model, prompts: Sequence[Prompt], answers: Sequence[str], end_mark: bool) -> list[AnswerLogprob]:
        chunks.append([next(p.id for p in prompt.turns[1].content if not isinstance(p, str)) for prompt in prompts])
        return [AnswerLogprob(-1.0, 1)] * len(prompts)

    monkeypatch.setattr(type(model), "logprob", record)
    monkeypatch.setattr("leverplus_core.scoring.chunks.SMALLEST", 6)
    shown = world.demonstrations()[10:14]
    scorer.logprobs([(q, (d.id,)) for q in world.questions("validation")[:6] for d in shown])
    assert [len(set(chunk)) for chunk in chunks] == [1] * len({d.image.id for d in shown})


def test_a_log_probability_that_is_not_finite_is_refused(
    world: Dataset, scorer: Scorer, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        type(model), "logprob", lambda self, prompts, answers, end_mark: [AnswerLogprob(math.nan, 1)] * len(prompts)
    )
    with pytest.raises(DataError, match="log-probability nan"):
        scorer.logprobs([(world.questions("validation")[0], ())])


def test_the_demo_model_copies_from_a_matching_demonstration_and_sees_shapes(
    model: Model, catalog: Catalog, tmp_path: Path
) -> None:
    """On a world and pictures that its training never drew: the bars of the demo model."""
    from leverplus_demo import world as w

    settings = {"seed": 4242, "train": 400, "validation": 400, "keep": 0.0, "agreement": 1.0, "cache": str(tmp_path)}
    dataset = catalog.build("dataset", "demo_world", settings)
    topic_of = {text: name for name, topic in w.TOPICS.items() for text in topic.phrasings}

    def cell(text: str, caption: str | None) -> tuple[str, str]:
        topic = topic_of[text]
        values = w.key_values(w.TOPICS[topic].key)
        assert caption is not None
        return topic, next(v for v in values if v in caption.split())

    bank = {cell(d.text, d.image.caption): d for d in dataset.demonstrations()}
    defaults = w.default_table()
    copied, seen = [], []
    for question in dataset.questions("validation"):
        key = cell(question.text, question.image.caption)
        truth = metrics.most_frequent(question.answers)
        if key[0] == "shape":
            seen.append((build_prompt([], question, PROMPT), question))
        elif key in bank and defaults.get(key, truth) != truth:
            copied.append((build_prompt([bank[key]], question, PROMPT), question))
    for rows, bar in ((copied, 0.95), (seen, 0.97)):
        assert len(rows) >= 30
        texts = model.generate([prompt for prompt, _ in rows], Decoding(2, 1, 0.0))
        right = [metrics.accuracy(text, q.answers) for text, (_, q) in zip(texts, rows, strict=True)]
        assert sum(right) / len(right) >= bar


def test_a_question_that_is_longer_than_the_model_s_context_is_refused_with_its_id(
    world: Dataset, scorer: Scorer
) -> None:
    short, other = world.questions("validation")[:2]
    long = replace(other, text="what shape is it? " * 700)
    shown = (world.demonstrations()[0].id,)
    for ask in (scorer.answers, scorer.logprobs):
        with pytest.raises(DataError, match=rf"^question {long.id} with 1 demonstration: a prompt of .* does not fit"):
            ask([(short, shown), (long, shown)])
        with pytest.raises(DataError, match=rf"^question {long.id}: a prompt of [0-9],[0-9]+ tokens, .* reads 2,048"):
            ask([(long, ())])
    with pytest.raises(PromptError, match="does not fit"):
        scorer.model.last_hidden_state([build_prompt([], long, PROMPT)])


def test_a_picture_scores_alike_however_it_is_stored(scorer: Scorer, tmp_path: Path) -> None:
    """A black disc on white: opaque, on transparent pixels, in 16 bits, and as a TIFF that lies on its side."""
    from PIL import Image as Pil
    from PIL import ImageDraw

    disc = Pil.new("L", (56, 56), 255)
    ImageDraw.Draw(disc).ellipse((14, 14, 42, 42), fill=0)
    opacity = Pil.eval(disc, lambda value: 255 - value)
    exif = Pil.Exif()
    exif[0x0112] = 6
    black = Pil.new("L", disc.size, 0)
    disc.save(tmp_path / "opaque.png")
    Pil.merge("RGBA", (black, black, black, opacity)).save(tmp_path / "rgba.png")
    Pil.merge("LA", (black, opacity)).save(tmp_path / "la.png")
    Pil.fromarray(np.asarray(disc).astype(np.uint16) * 257).save(tmp_path / "wide.png")
    disc.transpose(Pil.Transpose.ROTATE_90).save(tmp_path / "side.tif", exif=exif)
    black.save(tmp_path / "all-black.png")
    names = ("opaque.png", "rgba.png", "la.png", "wide.png", "side.tif", "all-black.png")
    rows = [(Question(n, "what shape is it?", Image(n, str(tmp_path / n)), ("circle",) * 10), ()) for n in names]
    found = [logprob.mean for logprob in scorer.logprobs(rows)]
    assert found[:-1] == pytest.approx([found[0]] * 5, abs=1e-4)
    assert abs(found[-1] - found[0]) > 1


def test_a_model_whose_logits_are_no_numbers_is_refused(world: Dataset, catalog: Catalog, tmp_path: Path) -> None:
    """As of float16 that overflows; with imported candidates nothing but answers may be asked."""
    import torch

    for attention in ("sdpa", "eager"):
        model = catalog.build("model", "qwen2_5_vl", {"path": "demo", "attention": attention, "device": "cpu"})
        with torch.no_grad():
            model._model.get_output_embeddings().weight.fill_(float("nan"))
        cached = CachedModel(lambda model=model: model, model.identity, ResponseCache(tmp_path / f"{attention}.sqlite"))
        for beams in (1, 3):
            scorer = Scorer(cached, {}, PROMPT, Decoding(2, beams, 0.0))
            with pytest.raises(DataError, match=r"logits are not numbers. Check its dtype: float16"):
                scorer.answers([(world.questions("validation")[0], ())])


def test_questions_are_searched_in_blocks_whose_largest_level_has_at_most_a_million_prompts() -> None:
    questions = [Question(str(i), "what?", Image(str(i)), ("a",)) for i in range(8000)]
    # The second level asks 5 x 63 prompts a question, and 3,328 x 315 = 1,048,320 <= 2^20 = 1,048,576.
    blocks = list(in_blocks(questions, 64, BeamSettings(num_beams=5, shots=2)))
    assert [len(block) for block in blocks] == [3328, 3328, 1344]
    assert [q for block in blocks for q in block] == questions
    [alone] = in_blocks(questions[:1], 10**6, BeamSettings(num_beams=5, shots=2))  # never none
    assert list(alone) == questions[:1]
