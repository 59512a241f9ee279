"""Batches of images: what does not fit in memory is halved and remembered, and finds the same tokens."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pil
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from leverplus_core import DataError
from leverplus_core.testing import tiny_pictures
from leverplus_models.engine.image_encoder import ImageEncoder
from leverplus_models.engine.settings import EngineSettings
from leverplus_models.qwen2_5_vl import Qwen25Vl


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "vocab_size": 50,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "depth": 2, "num_heads": 2, "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="sdpa").eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Five pictures of 4 x 4 patches and two of 4 x 6."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    made = [folder / f"{i}.png" for i in range(7)]
    for i, path in enumerate(made):
        Pil.fromarray(draw.integers(0, 256, (56, 56 if i < 5 else 84, 3), dtype=np.uint8)).save(path)
    return [str(path) for path in made]


def _encoder(model: Any, **settings: Any) -> ImageEncoder:
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 168 * 168})
    return ImageEncoder(model, processor, "v", EngineSettings(**settings), None)


def _encoded(model: Any, files: list[str], **settings: Any) -> tuple[ImageEncoder, list[torch.Tensor]]:
    encoder = _encoder(model, **settings)
    keys = [encoder.inspect(file).key for file in files]
    found = encoder.encode(keys, ())
    return encoder, [found[key] for key in keys]


def _limit(model: Any, monkeypatch: pytest.MonkeyPatch, patches: int, message: str) -> list[int]:
    """Let the tower fail on more patches than so many; returns what it was asked for."""
    asked: list[int] = []
    honest = type(model).get_image_features

    def limited(self: Any, pixels: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        asked.append(len(pixels))
        if len(pixels) > patches:
            raise RuntimeError(message)
        return honest(self, pixels, *args, **kwargs)

    monkeypatch.setattr(type(model), "get_image_features", limited)
    return asked


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    model: Any, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = _encoded(model, files, image_batches=False)
    asked = _limit(model, monkeypatch, 33, "CUDA out of memory. Tried to allocate 2 GiB.")
    encoder, found = _encoded(model, files)
    for tokens, known in zip(found, expected, strict=True):
        torch.testing.assert_close(tokens, known, atol=1e-5, rtol=1e-5)
    # Five of 16 patches: three and two, three again two and one, which is filled up to two; two of 24: one by one.
    assert asked == [80, 48, 32, 32, 32, 48, 24, 24]
    assert encoder.patches == 24
    asked.clear()
    encoder.cache = _encoder(model).cache
    encoder.encode([encoder.inspect(file).key for file in files], ())
    assert max(asked) <= 24  # nothing fails a second time


def test_one_image_that_does_not_fit_is_an_error(model: Any, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _limit(model, monkeypatch, 8, "CUDA out of memory. Tried to allocate 2 GiB.")
    with pytest.raises(DataError, match=r"0\.png' does not fit in the memory of cpu: CUDA out of memory"):
        _encoded(model, files[:2])


def test_another_failure_of_the_tower_is_not_tried_again(
    model: Any, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _limit(model, monkeypatch, 8, "an illegal instruction")
    with pytest.raises(RuntimeError, match="illegal instruction"):
        _encoded(model, files[:2])
    assert asked == [64]  # two of 16 patches, filled up


def test_many_files_are_inspected_at_once_for_a_gpu_and_a_bad_one_is_named_when_it_is_asked_for(
    model: Any, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageEncoder, "_readers", 4)
    encoder = _encoder(model)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    encoder.inspect_all([*files, str(bad)])
    honest = encoder._read_header
    again: list[str] = []
    monkeypatch.setattr(encoder, "_read_header", lambda path: (again.append(path), honest(path))[1])
    assert [encoder.inspect(file).grid for file in files] == [(2, 2)] * 5 + [(2, 3)] * 2
    with pytest.raises(DataError, match=r"bad\.png"):
        encoder.inspect(str(bad))
    assert again == [str(bad)]


def test_for_a_gpu_the_first_batches_are_small_unless_images_were_asked_for_in_advance(
    model: Any, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of 80 patches hold five pictures of 16; the first, an eighth of it, holds one."""
    monkeypatch.setattr(ImageEncoder, "_readers", 4)
    asked = _limit(model, monkeypatch, 1000, "")
    encoder = _encoder(model)
    encoder.patches = 80
    keys = [encoder.inspect(file).key for file in files]
    first = encoder.encode(keys[:5], keys[5:])
    assert asked == [16, 16, 32, 16]  # 80 / 8, 80 / 4, 80 / 2, and what is left
    asked.clear()
    encoder.encode(keys[5:], ())
    assert asked == [48]  # read meanwhile
    monkeypatch.undo()
    plain = _encoded(model, files[:5])[1]
    for key, known in zip(keys[:5], plain, strict=True):
        torch.testing.assert_close(first[key], known, atol=1e-5, rtol=1e-5)


def test_the_order_in_which_threads_are_done_changes_nothing(
    model: Any, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageEncoder, "_readers", 4)
    read, found = ImageEncoder._read, []
    for delays in ([0.0] * 7, [0.2, 0.1, 0.0, 0.15, 0.05, 0.1, 0.0], [0.0, 0.05, 0.1, 0.15, 0.2, 0.0, 0.1]):
        encoder = _encoder(model)
        keys = [encoder.inspect(file).key for file in files]
        waits = dict(zip(keys, delays, strict=True))

        def late(self: ImageEncoder, key: str, waits: dict[str, float] = waits) -> torch.Tensor:
            time.sleep(waits[key])
            return read(self, key)

        monkeypatch.setattr(ImageEncoder, "_read", late)
        tokens = encoder.encode(keys[:5], keys[5:]) | encoder.encode(keys[5:], ())  # type: ignore[operator]
        found.append(torch.cat([tokens[key] for key in keys]))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_what_a_reading_thread_meets_is_one_line(
    model: Any, files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that is damaged after its header has been read, and one that changes."""
    monkeypatch.setattr(ImageEncoder, "_readers", 4)
    encoder = _encoder(model)
    damaged, changed = tmp_path / "damaged.jpg", tmp_path / "changed.png"
    with Pil.open(files[0]) as picture:
        picture.resize((224, 224)).save(damaged, quality=95)
    damaged.write_bytes(damaged.read_bytes()[:2000])
    changed.write_bytes(Path(files[1]).read_bytes())
    keys = [encoder.inspect(str(path)).key for path in (damaged, changed)]
    changed.write_bytes(Path(files[2]).read_bytes())
    with pytest.raises(DataError, match=r"damaged\.jpg' cannot be read"):
        encoder.encode(keys[:1], keys[1:])
    with pytest.raises(DataError, match=r"changed\.png' changed during the run"):
        encoder.encode(keys[1:], ())


def test_the_features_of_an_image_are_the_same_bits_whatever_is_encoded_with_it(tmp_path: Path) -> None:
    """Of several processes that share a folder of features, whoever is first encodes an image."""
    encoder = Qwen25Vl()._image_encoder
    keys = [encoder.inspect(str(image.path)).key for image in tiny_pictures(tmp_path, 9)]
    whole = dict(encoder._encode(keys))
    for size in (1, 2, 3):
        for start in range(0, 9, size):
            for key, tokens in encoder._encode(keys[start : start + size]):
                assert torch.equal(tokens, whole[key])
