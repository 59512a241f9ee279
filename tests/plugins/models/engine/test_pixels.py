"""Photos to patches: the numbers of transformers' own image processor, bit for bit."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image as Pil
from transformers import Qwen2VLImageProcessorPil

from leverplus_models.engine.pixels import Patches


@pytest.mark.parametrize("flags", [{}, {"do_normalize": False}, {"do_rescale": False}])
@pytest.mark.parametrize("size", [(97, 61), (28, 28), (300, 160)])
def test_patches_are_the_processor_s_own(size: tuple[int, int], flags: dict[str, bool]) -> None:
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 168 * 168}, **flags)
    patches = Patches(processor, torch.float32, torch.device("cpu"))
    draw = np.random.default_rng(0)
    photos = [Pil.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in range(2)]
    files = []
    for photo in photos:
        photo.save(file := BytesIO(), format="PNG")
        files.append(file.getvalue())
    expected = processor(images=photos, return_tensors="pt")["pixel_values"]
    assert torch.equal(patches.of([patches.picture(data, "photo.png") for data in files]), expected)
