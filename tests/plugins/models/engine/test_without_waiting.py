"""The device's path on torch's `meta` device, which has shapes and no numbers: reading a number there is an error.

So what runs to its end never waited for a result. At the true geometry of Qwen2.5-VL-3B nothing takes memory.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pil
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2_5_VLConfig, Qwen2VLImageProcessorPil

from leverplus_models.engine import device as device_module
from leverplus_models.engine import engine as engine_module
from leverplus_models.engine import fused, gpu_layers, image_encoder, kernels, tree_attention
from leverplus_models.engine.engine import Engine
from leverplus_models.engine.image_encoder import ImageEncoder
from leverplus_models.engine.kernels import Kernels
from leverplus_models.engine.rows import Row, Span
from leverplus_models.engine.settings import EngineSettings
from tools.bench.geometry import THREE_B, random_model

POOL, BEAMS, VISUAL = 64, 5, 391
"""A search of one question as the bench has it: photos of 640 x 480."""


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, ...]]:
    """Layers as on a GPU of 80 GiB, each of its own kernels one operator; which forms of them would be compiled."""
    seen: set[tuple[str, ...]] = set()

    def note(name: str, *sizes: object) -> None:
        seen.add((name, *map(str, sizes)))

    for module in (kernels, tree_attention, engine_module):
        monkeypatch.setattr(module, "supports_packed", lambda model: True)
    monkeypatch.setattr(kernels, "on_gpu", lambda model: True)
    monkeypatch.setattr(device_module, "free_memory", lambda device: 80 << 30)

    moved = device_module.moved

    def noted(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        _Launches.moving = True
        try:
            return moved(tensor, device)
        finally:
            _Launches.moving = False

    for module in (device_module, image_encoder):
        monkeypatch.setattr(module, "moved", noted)

    def attention(query: torch.Tensor, *more: Any) -> torch.Tensor:
        return query.clone()

    def norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        note("norm", x.shape[-1], x.dtype)
        return x.clone()

    def gated(both: torch.Tensor) -> torch.Tensor:
        note("gated", both.shape[-1], both.dtype)
        return both.chunk(2, -1)[0].clone()

    def rotate(made: Any, cos: Any, sin: Any, query: torch.Tensor | None, both: torch.Tensor | None) -> None:
        heads, keys = query.shape[1] if query is not None else 0, both.shape[2] if both is not None else 0
        note("rotate", heads, keys, cos.shape[-1], made.dtype, cos.dtype)
        written = query if query is not None else both
        assert written is not None
        written.zero_()

    for module in (tree_attention, gpu_layers):
        monkeypatch.setattr(module, "packed_attention", attention)
    for name, kernel in (("rms_norm", norm), ("silu_times", gated), ("rotate", rotate)):
        monkeypatch.setattr(gpu_layers, name, kernel)
        monkeypatch.setattr(fused, name, kernel)
    return seen


class _Launches(TorchDispatchMode):
    """Counts operators that are a kernel on a device: all but views and memory that is taken.

    A copy from the processor that does not go through `moved` waits for all that was started before it.
    """

    moving = False

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        tensors = [t for t in torch.utils._pytree.tree_leaves((args, kwargs, found)) if isinstance(t, torch.Tensor)]
        on_device = any(tensor.is_meta for tensor in tensors)
        if on_device and not _Launches.moving and any(tensor.is_cpu for tensor in tensors):
            raise AssertionError(f"{func} waits for the device")
        if on_device and not func.is_view and "empty" not in func.name() and "detach" not in func.name():
            self.counts[func.overloadpacket.__name__] += 1
        return found


def _model(**text: Any) -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    vision = {"patch_size": 14, "spatial_merge_size": 2, "window_size": 112, "out_hidden_size": 2048}
    config = Qwen2_5_VLConfig(
        text_config={**THREE_B["text_config"], "rope_parameters": rope, **text},
        vision_config={**THREE_B["vision_config"], **vision},
        tie_word_embeddings=True,
    )
    return random_model(config, torch.bfloat16, "meta")


@pytest.fixture(scope="module")
def model() -> Any:
    return _model()


def _level(shots: int) -> list[Row]:
    """The prompts of a search's level: each kept beginning before each demonstration of the pool, then the question."""
    made = []
    for first, second in itertools.product(range(BEAMS if shots == 2 else 1), range(1, POOL + 1)):
        ids, spans = [7] * 20, []
        for photo in [*([POOL - first] if shots == 2 else []), second, 0]:
            spans.append(Span(len(ids), len(ids) + VISUAL, f"photo {photo}"))
            ids += [5] * VISUAL + [100 + photo] * 15
        made.append(Row(np.array(ids), np.arange(len(ids))[None].repeat(3, 0), tuple(spans)))
    return made


def _engine(model: Any) -> Engine:
    shown = torch.empty(VISUAL, 2048, dtype=torch.bfloat16, device="meta")
    return Engine(model, [1], 0, EngineSettings(), lambda keys, upcoming: dict.fromkeys(keys, shown))


def test_a_search_starts_few_kernels_and_waits_for_none(model: Any, forms: set[tuple[str, ...]]) -> None:
    """384 prompts, counted; the time of an H200 was nine parts in ten kernels when there were 23 a prompt."""
    engine, counts = _engine(model), []
    assert engine.ahead and engine.budget == 32768
    for rows in (_level(1), _level(2)):
        with _Launches() as launches:
            scoring = engine.start(rows, [[5, 6]] * len(rows))
            assert len(scoring.pending) == 1  # one batch has been started
            with pytest.raises(NotImplementedError, match="meta"):  # when it has started all, it reads the results
                engine.finish(scoring)
        counts.append((len(scoring.pending), launches.counts.total()))
    (few, fewer), (batches, more) = counts
    assert (few, batches) == (2, 9)
    assert more / batches <= 460  # 36 layers of 12 or 13, and what surrounds them
    assert (fewer + more) / 384 <= 14
    assert len(forms) == 5, forms  # a norm, an MLP, and rotations of queries, keys, and both


def test_a_tower_starts_as_many_kernels_for_many_photos_as_for_few(
    model: Any, forms: set[tuple[str, ...]], tmp_path: Path
) -> None:
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 640 * 480})
    encoder, counts = ImageEncoder(model, processor, "v", EngineSettings(), None), []
    for photos in ([0], [1], [2, 3, 4]):
        for n in photos:
            Pil.new("RGB", (640, 480), (n, 2 * n, 3 * n)).save(tmp_path / f"{n}.bmp")
        keys = [encoder.inspect(str(tmp_path / f"{n}.bmp")).key for n in photos]
        with Kernels(model).patched(), _Launches() as launches:
            assert {found.shape for found in encoder.encode(keys, ()).values()} == {(VISUAL, 2048)}
        counts.append(launches.counts.total() - len(photos))  # each photo's tokens are copied out
    assert counts[1] == counts[2] <= 380  # 32 blocks of eleven, and what surrounds them
    assert len(forms) == 3, forms


def test_padded_attention_meets_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no kernel takes sequences of different lengths, the sizes of queries and keys are rounded up."""
    shapes: set[tuple[int, int]] = set()
    made = tree_attention._bucket

    def noted(own: Any, paths: Any, model: Any, group: int, padding: Any) -> Any:
        found = made(own, paths, model, group, padding)
        shapes.add((len(found.queries) // found.size, len(found.keys) // found.size))
        return found

    monkeypatch.setattr(tree_attention, "_bucket", noted)
    monkeypatch.setattr(kernels, "on_gpu", lambda model: True)
    monkeypatch.setattr(device_module, "free_memory", lambda device: 80 << 30)
    engine = _engine(_model(num_hidden_layers=1))
    for rows in (_level(1), _level(2)):
        with pytest.raises(NotImplementedError, match="meta"):
            engine.logprob(rows, [[5, 6]] * len(rows))
    assert len(shapes) <= 10, sorted(shapes)
