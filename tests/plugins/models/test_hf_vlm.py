"""HfVlm on tiny random checkpoints of several families, against transformers' own forward and generate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image as Pil

from leverplus_core import (
    CheckpointError,
    DataError,
    Decoding,
    Demonstration,
    Image,
    LeverplusWarning,
    Prompt,
    PromptError,
    PromptSettings,
    Question,
    Turn,
    build_prompt,
)
from leverplus_core.testing import check_model
from leverplus_models.engine.engine import Engine
from leverplus_models.engine.padding import pad
from leverplus_models.engine.rows import Row
from leverplus_models.engine.settings import EngineSettings
from leverplus_models.hf_vlm import HfVlm
from leverplus_models.qwen2_5_vl import Qwen25Vl
from tests.plugins.models.families import CHATML, COMPOSED, FAMILIES, save, without_video

TREE = ("llava", "llava_next", "idefics3", "qwen2_vl", "internvl", "mistral3")
WHOLE = ("llava_onevision",)
"""Families whose processors have to see the whole prompt."""
GREEDY, BEAM = Decoding(max_new_tokens=4, num_beams=1), Decoding(max_new_tokens=4, num_beams=3)
Made = Callable[..., HfVlm]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    made = []
    for i, (width, height) in enumerate(((56, 56), (112, 56), (60, 90))):
        Pil.fromarray(draw.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        made.append(Image(f"i{i}", str(folder / f"{i}.png"), "a picture"))
    return made


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A model of a family, whose checkpoint is written once, with settings."""
    saved: dict[str, tuple[Path, Any]] = {}

    def made(name: str, **settings: Any) -> HfVlm:
        if name not in saved:
            folder = tmp_path_factory.mktemp(name)
            saved[name] = folder, save(name, folder)
        model = HfVlm(path=str(saved[name][0]), device="cpu", **settings)
        if name in COMPOSED:
            vars(model)["processor"] = saved[name][1]
        return model

    return made


def _said(name: str) -> Any:
    """What a family says once: nothing where it shares prefixes."""
    return (
        pytest.warns(LeverplusWarning, match="takes the padded path|is called for every prompt")
        if name not in TREE
        else _nothing()
    )


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...


def _prompts(images: Sequence[Image]) -> list[Prompt]:
    """No to three demonstrations in one turn and in several, texts that begin with spaces and line breaks."""
    texts = ("What is it?", "\nWho made it?", " an animal?", "Where?\n\n")
    made = []
    for n in range(4):
        for template in ("single_turn", "multi_turn"):
            settings = PromptSettings(template=template, system="", question="{question} Answer:", separator="\n\n")
            shown = [
                Demonstration(f"d{k}", texts[k], images[(n + k) % 3], ("fox", "red", "a ring")[k]) for k in range(n)
            ]
            made.append(build_prompt(shown, Question("q", texts[n], images[n % 3], ("fox",)), settings))
    return made


class Own:
    """The model as transformers' documentation runs it: one prompt at a time, through the processor."""

    def __init__(self, part: HfVlm) -> None:
        self.processor = part.processor
        self.model: Any = tf.AutoModelForImageTextToText.from_pretrained(part.path).eval()
        self.tokenizer = self.processor.tokenizer
        self.options = part._chat.options

    def inputs(self, prompt: Prompt, answer: str = "") -> dict[str, torch.Tensor]:
        messages, pictures = [], []
        for turn in prompt.turns:
            content: list[dict[str, str]] = []
            for part in turn.content:
                if isinstance(part, Image):
                    pictures.append(Pil.open(str(part.path)))
                content.append({"type": "text", "text": part} if isinstance(part, str) else {"type": "image"})
            messages.append({"role": turn.role, "content": content})
        text = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + answer
        special = {"add_special_tokens": False} if text.startswith(self.tokenizer.bos_token) else {}
        return dict(
            self.processor(
                text=[text], images=[pictures] if pictures else None, return_tensors="pt", **special, **self.options
            )
        )

    def logprob(self, prompt: Prompt, answer: str) -> tuple[float, int]:
        start, whole = self.inputs(prompt)["input_ids"].shape[1], self.inputs(prompt, answer)
        ids = whole["input_ids"][0, start:]
        with torch.inference_mode():
            logprobs = self.model(**whole).logits[0, start - 1 : -1].log_softmax(-1)
        return float(logprobs.gather(-1, ids[:, None]).sum()), len(ids)

    def generate(self, prompt: Prompt, decoding: Decoding) -> str:
        inputs = self.inputs(prompt)
        how = {"length_penalty": decoding.length_penalty} if decoding.num_beams > 1 else {}
        new = self.model.generate(
            **inputs, max_new_tokens=decoding.max_new_tokens, num_beams=decoding.num_beams, do_sample=False,
            eos_token_id=self.tokenizer.eos_token_id, pad_token_id=self.tokenizer.pad_token_id, **how,
        )  # fmt: skip
        return str(self.tokenizer.decode(new[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_keeps_the_contract_of_models(make: Made, images: list[Image], name: str) -> None:
    with _said(name):
        check_model(make(name), images)


@pytest.mark.parametrize("name", FAMILIES)
def test_log_probabilities_and_answers_are_transformers_own(make: Made, images: list[Image], name: str) -> None:
    part, prompts = make(name), _prompts(images)
    own, spaces = Own(part), part._chat.answer_frame[0]
    answers = [("fox", "a ring", "red")[n % 3] for n in range(len(prompts))]
    with _said(name):
        got = part.logprob(prompts, answers)
    assert (part._engine.window > 0) == (name in TREE)
    assert (part._images.encoded, part._chat.exact) == ((False, False) if name in WHOLE else (True, True))
    expected = [own.logprob(prompt, spaces + answer) for prompt, answer in zip(prompts, answers, strict=True)]
    assert [found.sum for found in got] == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert [found.tokens for found in got] == [tokens for _, tokens in expected]
    assert len({round(found.sum, 2) for found in got}) > 4
    for decoding in (GREEDY, BEAM):
        assert part.generate(prompts, decoding) == [own.generate(prompt, decoding) for prompt in prompts]


@pytest.mark.parametrize("name", ["llava", "idefics3", "gemma3", "qwen2_vl", "qwen3_vl"])
def test_pixels_of_each_batch_give_the_same_as_encoded_images(make: Made, images: list[Image], name: str) -> None:
    """Padded batches of prompts with different numbers of images, some of several shapes."""
    prompts, answers = _prompts(images), ["fox"] * 8
    part, pixels = (make(name, engine=EngineSettings(tree="off", image_cache=cache)) for cache in (True, False))
    expected, got = part.logprob(prompts, answers), pixels.logprob(prompts, answers)
    assert (part._images.encoded, pixels._images.encoded) == (True, False)
    assert [g.sum for g in got] == pytest.approx([e.sum for e in expected], abs=1e-4)
    assert pixels.generate(prompts, BEAM) == part.generate(prompts, BEAM)


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen2_vl"])
def test_a_prompt_without_an_image_is_read_as_well(make: Made, images: list[Image], name: str) -> None:
    mixed = [Prompt((Turn("user", ("What is it?",)),)), *_prompts(images)[:2]]
    part = make(name, engine=EngineSettings(tree="off"))
    own, spaces = Own(part), part._chat.answer_frame[0]
    got = part.logprob(mixed, ["fox"] * 3)
    assert [g.sum for g in got] == pytest.approx([own.logprob(p, spaces + "fox")[0] for p in mixed], abs=1e-4)


def test_the_tuned_class_of_qwen2_5_vl_gives_the_same(images: list[Image]) -> None:
    tuned, general = Qwen25Vl(path="demo", device="cpu"), HfVlm(path="demo", device="cpu")
    size = {"shortest_edge": 56 * 56, "longest_edge": 640 * 480}
    vars(general)["processor"] = without_video(
        tf.Qwen2_5_VLProcessor,
        tf.Qwen2VLImageProcessorPil(size=size),
        tuned.tokenizer,
        chat_template=CHATML.replace("IMG", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    prompts, answers = _prompts(images), ["fox"] * 8
    expected = tuned.logprob(prompts, answers, end_mark=True)
    got = general.logprob(prompts, answers, end_mark=True)
    assert [g.sum for g in got] == pytest.approx([e.sum for e in expected], abs=1e-4)
    assert general.generate(prompts, BEAM) == tuned.generate(prompts, BEAM)


# --- what must not run on the tree ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen3_vl", "gemma3"])
def test_an_architecture_that_the_tree_would_score_wrongly_is_caught_if_it_is_forced(
    make: Made, images: list[Image], name: str
) -> None:
    """Deep features of Qwen3-VL, and the tokens of an image that see each other in Gemma 3, are unknown to the tree."""
    prompts = _prompts(images)
    forced, own = make(name, engine=EngineSettings(tree="force")), Own(make(name))
    with pytest.warns(
        LeverplusWarning, match=rf"{name} takes the padded path: on two prompts the prefix tree does not"
    ):
        got = forced.logprob(prompts, ["fox"] * len(prompts))
    assert forced._engine.window == 0
    assert [found.sum for found in got] == pytest.approx([own.logprob(p, "fox")[0] for p in prompts], abs=1e-4)


SHAPE: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.5, "head_dim": 8, "pad_token_id": 0, "eos_token_id": 1,
    "bos_token_id": None,
}  # fmt: skip


def _text_rows() -> list[Row]:
    draw = np.random.default_rng(0)
    lengths = (9, 12, 20)
    return [Row(draw.integers(2, 40, n), np.arange(n, dtype=np.int64)[None]) for n in lengths]


def test_a_prefix_that_sees_itself_is_caught_if_the_tree_is_forced() -> None:
    """PaliGemma's prompt attends in both directions."""
    torch.manual_seed(0)
    text = tf.GemmaConfig(**SHAPE)
    vision = tf.SiglipVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    config = tf.PaliGemmaConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=32)
    model = tf.PaliGemmaForConditionalGeneration(config).eval()
    rows = _text_rows()

    def inputs(batch: Sequence[Row]) -> dict[str, torch.Tensor]:
        found = pad(batch, 0, model, {})
        return {**found, "token_type_ids": torch.zeros_like(found["attention_mask"])}

    engine = Engine(model, [1], 0, EngineSettings(tree="force"), inputs=inputs)
    with pytest.warns(LeverplusWarning, match="paligemma takes the padded path: on two prompts"):
        engine.verify(rows)
    assert engine.window == 0
    for row, found in zip(rows, engine.logprob(rows, [(5,)] * 3), strict=True):
        ids = torch.from_numpy(row.ids)[None]
        with torch.inference_mode():
            own = model(input_ids=ids, token_type_ids=torch.zeros_like(ids)).logits[0, -1].log_softmax(-1)
        assert found.sum == pytest.approx(float(own[5]), abs=1e-4)


def test_the_tree_runs_what_is_not_listed_if_it_is_forced_and_agrees() -> None:
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(tf.OlmoConfig(**SHAPE), attn_implementation="sdpa").eval()
    with pytest.warns(LeverplusWarning, match="olmo takes the padded path: it is not an architecture"):
        Engine(model, [1], 0, EngineSettings()).verify(_text_rows())
    forced = Engine(model, [1], 0, EngineSettings(tree="force"))
    forced.verify(_text_rows())
    assert forced.window > 0


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_a_system_turn_that_the_template_refuses_begins_the_first_user_turn(make: Made, images: list[Image]) -> None:
    asked = Prompt((Turn("system", ("Be brief.",)), Turn("user", (images[0], "What?"))))
    assert make("llava")._chat.render(asked) == "USER: Be brief.\n\n<image>\nWhat? ASSISTANT:"
    assert make("gemma3")._chat.render(asked) == (
        "<s><start_of_turn>user\nBe brief.<start_of_image>What?<end_of_turn>\n<start_of_turn>model\n"
    )
    assert make("idefics3")._chat.render(asked).startswith("<|im_start|>system\nBe brief.<end_of_utterance>\n")


def test_a_template_that_leaves_the_system_turn_out_gets_it_in_the_user_turn(make: Made, images: list[Image]) -> None:
    part = make("idefics3")
    chat = part._chat
    chat.template = chat.template.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    asked = Prompt((Turn("system", ("Be brief.",)), Turn("user", (images[0], "What?"))))
    assert "user\nBe brief.\n\n<image>What?" in chat.render(asked)


def test_a_template_that_shows_all_images_first_is_a_warning(make: Made, images: list[Image]) -> None:
    """As LLaVA's own do: with one image a turn the order is kept."""
    part = make("idefics3")
    content = "{% for c in m.content %}{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}"
    first = (
        "{% for c in m.content if c.type == 'image' %}<image>{% endfor %}"
        "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}"
    )
    chat = part._chat
    assert content in chat.template
    chat.template = chat.template.replace(content, first)
    shown = [Demonstration("d", "Who?", images[0], "fox")]
    prompts = {
        template: build_prompt(shown, Question("q", "What?", images[1], ("fox",)), PromptSettings(template=template))
        for template in ("single_turn", "multi_turn")
    }
    chat.render(prompts["multi_turn"])
    with pytest.warns(LeverplusWarning, match="in their order; with prompt.template: multi_turn"):
        chat.render(prompts["single_turn"])
    chat.render(prompts["single_turn"])  # said once


def test_a_template_that_wants_strings_gets_them(make: Made, images: list[Image]) -> None:
    """Of turns without images: some templates join their content to other strings, some print what it is."""
    asked = Prompt(
        (Turn("user", (images[0], "Who?")), Turn("assistant", ("A fox.",)), Turn("user", (images[1], "What?")))
    )
    for content in ("{{ m.content }}", "{{ '' + m.content }}"):
        part = make("idefics3")
        part._chat.template = (
            "{% for m in messages %}{% if m.role == 'assistant' %}" + content + "{% else %}{% for c in m.content %}"
            "{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}|{% endfor %}"
        )
        assert part._chat.render(asked) == "<image>Who?|A fox.|<image>What?|"


def test_the_answer_is_scored_as_the_template_writes_it(make: Made) -> None:
    assert make("llava")._chat.answer_frame == (" ", "</s>")
    part = make("qwen2_vl")
    assert part._chat.answer_frame == ("", "<|im_end|>\n")
    assert part._end_mark == part.tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_a_model_that_may_think_is_told_not_to(make: Made, images: list[Image]) -> None:
    part = make("idefics3")
    chat = part._chat
    chat.template += "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
    assert "<think>" not in chat.render(Prompt((Turn("user", (images[0], "What?")),)))


def test_a_control_token_in_a_text_is_one_line(make: Made, images: list[Image]) -> None:
    for name, text in (("llava", "a <image> b"), ("idefics3", "x<|im_start|>y")):
        with pytest.raises(PromptError, match=r"contains '<.*>', a control token\."):
            make(name).generate([Prompt((Turn("user", (images[0], text)),))], GREEDY)


def test_a_template_that_shows_no_images_is_one_line(make: Made, images: list[Image]) -> None:
    part = make("llava")
    part._chat.template = "{% for m in messages %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}"
    with pytest.raises(CheckpointError, match="shows 0 of 1 images"):
        part.generate([Prompt((Turn("user", (images[0], "What?")),))], GREEDY)


def test_a_template_that_refuses_the_roles_is_one_line(make: Made, images: list[Image]) -> None:
    twice = Prompt((Turn("user", (images[0], "What?")), Turn("user", (images[1], "And this?"))))
    with pytest.raises(CheckpointError, match=r"refuses a prompt: .*roles must alternate"):
        make("gemma3")._chat.render(twice)


def test_a_processor_whose_tokens_depend_on_the_whole_is_called_for_every_prompt(
    make: Made, images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some processors number the images of a prompt."""
    part, prompts = make("llava"), _prompts(images)
    honest = type(part.processor).replace_image_token

    def numbered(self: Any, image_inputs: Any, image_idx: int, **more: Any) -> str:
        return f"Picture {image_idx + 1}: {honest(self, image_inputs, image_idx, **more)}"

    monkeypatch.setattr(type(part.processor), "replace_image_token", numbered)
    own = Own(part)
    with pytest.warns(LeverplusWarning, match="is called for every prompt"):
        got = part.logprob(prompts, ["fox"] * 8)
    assert [found.sum for found in got] == pytest.approx([own.logprob(p, " fox")[0] for p in prompts], abs=1e-4)
    assert part.generate(prompts, BEAM) == [own.generate(prompt, BEAM) for prompt in prompts]


# --- images -----------------------------------------------------------------------------------------------------------


def test_an_image_is_encoded_once_and_found_again_by_the_next_run(
    make: Made, images: list[Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, encoded = _prompts(images), []
    for _ in range(2):
        part = make("idefics3")
        part.use_cache_folder(tmp_path)
        part.logprob(prompts[:1], ["fox"])  # compared with transformers' own call, which encodes as well
        honest, count = part._images._encoder, 0

        def counted(honest: Any = honest, **given: Any) -> Any:
            nonlocal count
            count += 1
            return honest(**given)

        monkeypatch.setattr(part._images, "_encoder", counted)
        first = part.logprob(prompts, ["fox"] * 8)
        assert part.logprob(prompts, ["fox"] * 8) == first
        encoded.append(count)
    assert encoded == [2, 0]  # of three images; the first was encoded in the comparison


def test_tiles_are_off_unless_they_are_asked_for(make: Made, images: list[Image]) -> None:
    wide = [Prompt((Turn("user", (images[1], "What?")),))]
    for name in ("idefics3", "internvl"):
        whole, tiles = make(name), make(name, split_images=True)
        assert len(tiles._row(wide[0]).ids) > len(whole._row(wide[0]).ids)
        assert tiles.identity() != whole.identity()
        assert tiles.logprob(wide, ["fox"])[0].sum == pytest.approx(Own(tiles).logprob(wide[0], "fox")[0], abs=1e-4)


def test_pictures_are_shrunk_to_max_pixels(make: Made, images: list[Image]) -> None:
    wide = Prompt((Turn("user", (images[1], "What?")),))
    large, small = make("qwen2_vl"), make("qwen2_vl", max_pixels=56 * 56)
    tokens = [int((part._row(wide).ids == part._chat.image_id).sum()) for part in (large, small)]
    assert tokens[0] == 8 and tokens[1] < 8
    assert small._shrunk(400, 100) == (112, 28)
    assert small.identity() != large.identity()


def test_rows_for_the_encoder_have_length_one(make: Made, images: list[Image]) -> None:
    part = make("internvl")
    both, single = part.embed_images(images[:2]), part.embed_images(images[1:2])
    assert both.shape == (2, 32) and np.allclose(both[1], single[0], atol=1e-5)
    assert np.allclose(np.linalg.norm(both, axis=1), 1) and np.allclose(np.linalg.norm(part.embed_texts(["a"])), 1)


def test_an_unreadable_image_is_named(make: Made, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for image, says in ((Image("x", str(tmp_path / "broken.png")), "broken.png"), (Image("y"), "'y' has no file")):
        with pytest.raises(DataError, match=says):
            make("llava").generate([Prompt((Turn("user", (image, "What?")),))], GREEDY)


def test_a_picture_that_the_processor_refuses_is_named(make: Made, tmp_path: Path) -> None:
    Pil.new("RGB", (900, 2)).save(tmp_path / "line.png")
    asked = [Prompt((Turn("user", (Image("line", str(tmp_path / "line.png")), "What?")),))]
    with pytest.raises(DataError, match=r"line\.png' is refused by the processor: absolute aspect ratio"):
        make("qwen2_vl").generate(asked, GREEDY)


def test_an_image_that_does_not_fit_in_memory_is_named(
    make: Made, images: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    def poor(**given: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    part = make("llava")
    monkeypatch.setattr(part._images, "_encoder", poor)
    with pytest.raises(DataError, match=r"0\.png' does not fit in the memory of cpu: CUDA out of memory"):
        part.embed_images(images[:1])


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (tf.PaliGemmaConfig, "paligemma, which reads one image and one text, so it can be shown no demonstrations"),
        (tf.MllamaConfig, "mllama, which reads images through cross-attention"),
        (tf.LlamaConfig, "llama, which is no model that transformers takes from images and text to text"),
    ],
)
def test_a_model_that_cannot_be_asked_is_refused_with_the_reason(tmp_path: Path, config: Any, says: str) -> None:
    config().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=says):
        _ = HfVlm(path=str(tmp_path)).checkpoint
    if config is not tf.LlamaConfig:
        with pytest.raises(CheckpointError, match=says):  # `leverplus validate` says so
            HfVlm(path=str(tmp_path), device="cpu").check_machine()


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_package_that_a_processor_wants_is_named_in_one_line(make: Made, images: list[Image]) -> None:
    part = HfVlm(path=make("qwen2_vl").path, device="cpu")
    with pytest.raises(CheckpointError, match="needs torchvision, which is not installed") as caught:
        part.generate([Prompt((Turn("user", (images[0], "What?")),))], GREEDY)
    assert "pip install 'leverplus[vlm]'" in str(caught.value.hint)


def test_the_template_decides_the_identity_and_the_device_does_not(make: Made, tmp_path: Path) -> None:
    source = Path(make("llava").path)
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    identity = HfVlm(path=str(source)).identity()
    assert HfVlm(path=str(tmp_path), device="cpu", engine=EngineSettings(tree="off")).identity() == identity
    assert HfVlm(path=str(tmp_path), dtype="bfloat16").identity() != identity
    (tmp_path / "chat_template.jinja").write_text("other")
    assert HfVlm(path=str(tmp_path)).identity() != identity
    assert json.dumps(identity)


def test_bfloat16_agrees_with_itself(make: Made, images: list[Image]) -> None:
    part, prompts = make("llava", dtype="bfloat16"), _prompts(images)
    exact = make("llava").logprob(prompts, ["fox"] * 8)
    assert [g.mean for g in part.logprob(prompts, ["fox"] * 8)] == pytest.approx([e.mean for e in exact], abs=0.5)
