"""Image files to visual tokens: read and preprocessed off the critical path, encoded once, many of a size together."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pil
from PIL import ImageOps
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from leverplus_core.errors import DataError
from leverplus_models.engine import EngineSettings
from leverplus_models.image_features import ImageFeatures

PATCHES_PER_BATCH = 4096
"""Patches that go through the vision tower at once: 256 demo pictures or two photos of 640 x 480. More gain nothing."""
AHEAD = 256
"""Images that are read before they are wanted."""
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)
"""The EXIF tag, and its values for a camera that lay on its side."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file as the model sees it: the key of its features, and its grid (h, w) of visual tokens."""

    key: str
    grid: tuple[int, int]


Pixels = tuple[Tensor, tuple[int, int]]
"""Patches (P, 1176) and their grid (h, w)."""


class Pictures:
    """The images of one model. `version` says which weights; the folder, where given, keeps features for later runs."""

    def __init__(self, model: Any, processor: Any, version: str, settings: EngineSettings, folder: Path | None) -> None:
        self.model, self.processor, self.settings = model, processor, settings
        self.known = ImageFeatures(settings.image_cache_mb * 2**20, folder)
        size = processor.size
        how = [version, str(model.dtype), size.shortest_edge, size.longest_edge, type(processor).__name__]
        self._how = json.dumps(how).encode()
        self._seen: dict[tuple[str, int, int], Picture] = {}
        self._paths: dict[str, str] = {}
        self._ahead: dict[str, Future[Pixels]] = {}

    def see(self, path: str) -> Picture:
        """What `path` holds. A file that is written anew is another picture. Raises DataError for no image."""
        try:
            stat = os.stat(path)
            stamp = (path, stat.st_mtime_ns, stat.st_size)
            if stamp not in self._seen:
                self._seen[stamp] = self._identify(path)
        except (OSError, ValueError, SyntaxError, Pil.DecompressionBombError) as error:
            raise _unreadable(path, error) from error
        return self._seen[stamp]

    @torch.inference_mode()
    def features(self, keys: Sequence[str], upcoming: Sequence[str]) -> Mapping[str, Tensor]:
        """Key -> visual tokens (h * w, D). `upcoming` are read meanwhile by another thread.

        Without the cache, each of `keys` is read and encoded as often as it is there.
        """
        if not self.settings.image_cache:
            return dict(self._encode(keys))
        wanted = list(dict.fromkeys(keys))
        found = self.known.get(wanted, self.model.device)
        missing = [key for key in wanted if key not in found]
        self._read_ahead([*missing, *(key for key in upcoming if key not in found)])
        for key, tokens in self._encode(missing):
            self.known.put(key, tokens)
            found[key] = tokens
        return found

    def _identify(self, path: str) -> Picture:
        """The content of a file and its size, without decoding it."""
        data = Path(path).read_bytes()
        with Pil.open(BytesIO(data)) as file:
            width, height = file.size
            if file.getexif().get(ORIENTATION) in SIDEWAYS:
                width, height = height, width
        p = self.processor
        side = p.patch_size * p.merge_size
        h, w = smart_resize(height, width, side, p.size.shortest_edge, p.size.longest_edge)
        key = self._key(data)
        self._paths[key] = path
        return Picture(key, (h // side, w // side))

    def _encode(self, keys: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """Each image through the vision tower, those of a size together."""
        waiting: dict[tuple[int, int], list[tuple[str, Tensor]]] = {}
        for key in keys:
            ahead = self._ahead.pop(key, None)
            pixels, grid = ahead.result() if ahead else self._read(key)
            batch = waiting.setdefault(grid, [])
            batch.append((key, pixels))
            if not self.settings.image_batches or (len(batch) + 1) * len(pixels) > PATCHES_PER_BATCH:
                yield from self._tower(waiting.pop(grid), grid)
        for grid, batch in waiting.items():
            yield from self._tower(batch, grid)

    def _tower(self, batch: Sequence[tuple[str, Tensor]], grid: tuple[int, int]) -> Iterator[tuple[str, Tensor]]:
        device = self.model.device
        pixels = torch.cat([pixels for _, pixels in batch]).to(device)
        grids = torch.tensor([(1, *grid)] * len(batch), device=device)
        for (key, _), tokens in zip(batch, self.model.get_image_features(pixels, grids).pooler_output, strict=True):
            yield key, tokens.clone()

    def _read(self, key: str) -> Pixels:
        path = self._paths[key]
        try:
            data = Path(path).read_bytes()
            if self._key(data) != key:
                raise DataError(f"image '{path}' changed while it was read.", "Run again once it is written.")
            with Pil.open(BytesIO(data)) as file:
                picture = (ImageOps.exif_transpose(file) or file).convert("RGB")
            out = self.processor(images=[picture], return_tensors="pt")
        except (OSError, ValueError, SyntaxError, Pil.DecompressionBombError) as error:
            raise _unreadable(path, error) from error
        _, h, w = out["image_grid_thw"][0].tolist()
        return out["pixel_values"], (h, w)

    def _key(self, data: bytes) -> str:
        return hashlib.sha256(data + b"\0" + self._how).hexdigest()

    def _read_ahead(self, keys: Sequence[str]) -> None:
        for key in keys:
            if len(self._ahead) >= AHEAD:
                return
            if key not in self._ahead and not self.known.has(key):
                self._ahead[key] = self._reader.submit(self._read, key)

    @cached_property
    def _reader(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "leverplus-images")


def _unreadable(path: str, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return DataError(f"image '{path}' cannot be read: {reason}.", "Check the file and the image folder.")
