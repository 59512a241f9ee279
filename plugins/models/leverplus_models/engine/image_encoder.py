"""Image files to visual tokens: read and preprocessed in a thread, encoded once, images of one size as a batch."""

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

from leverplus_core import DataError
from leverplus_models.engine.image_cache import ImageCache
from leverplus_models.engine.settings import EngineSettings

PATCHES_PER_BATCH = 4096
"""Patches per pass of the vision tower: 256 demo pictures or two photos of 640 x 480. Larger batches are no faster."""
MAX_PREFETCHED = 256
"""Images that are read before they are needed."""
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)
"""The EXIF tag, and its values for a photo that is shown rotated by a quarter turn."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The cache key of an image file's features, and its grid (h, w) of visual tokens."""

    key: str
    grid: tuple[int, int]


Pixels = tuple[Tensor, tuple[int, int]]
"""Patches (P, 1176) and their grid (h, w)."""


class ImageEncoder:
    """Encodes the images of one model.

    `version` identifies the weights; `folder`, if given, keeps the features for later runs.
    """

    def __init__(self, model: Any, processor: Any, version: str, settings: EngineSettings, folder: Path | None) -> None:
        self.model, self.processor, self.settings = model, processor, settings
        self.cache = ImageCache(settings.image_cache_mb * 2**20, folder)
        size = processor.size
        identity = [version, str(model.dtype), size.shortest_edge, size.longest_edge, type(processor).__name__]
        self._identity = json.dumps(identity).encode()
        self._infos: dict[tuple[str, int, int], ImageInfo] = {}
        self._paths: dict[str, str] = {}
        self._prefetched: dict[str, Future[Pixels]] = {}

    def inspect(self, path: str) -> ImageInfo:
        """Key and grid of the file at `path`, without decoding it. A file that has changed is another image.

        Raises DataError for a file that is missing or is no image.
        """
        try:
            stat = os.stat(path)
            stamp = (path, stat.st_mtime_ns, stat.st_size)
            if stamp not in self._infos:
                self._infos[stamp] = self._read_header(path)
        except (OSError, ValueError, SyntaxError, Pil.DecompressionBombError) as error:
            raise _unreadable(path, error) from error
        return self._infos[stamp]

    @torch.inference_mode()
    def encode(self, keys: Sequence[str], upcoming: Sequence[str]) -> Mapping[str, Tensor]:
        """Key -> visual tokens (h * w, D). The images of `upcoming` are read meanwhile in another thread.

        Without the image cache, an image is read and encoded as often as its key occurs. Raises DataError for a file
        that cannot be read or that has changed since it was inspected.
        """
        if not self.settings.image_cache:
            return dict(self._encode(keys))
        wanted = list(dict.fromkeys(keys))
        found = self.cache.get(wanted, self.model.device)
        missing = [key for key in wanted if key not in found]
        self._prefetch([*missing, *(key for key in upcoming if key not in found)])
        for key, tokens in self._encode(missing):
            self.cache.put(key, tokens)
            found[key] = tokens
        return found

    def _read_header(self, path: str) -> ImageInfo:
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
        return ImageInfo(key, (h // side, w // side))

    def _encode(self, keys: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        batches: dict[tuple[int, int], list[tuple[str, Tensor]]] = {}
        for key in keys:
            prefetched = self._prefetched.pop(key, None)
            pixels, grid = prefetched.result() if prefetched else self._read(key)
            batch = batches.setdefault(grid, [])
            batch.append((key, pixels))
            if not self.settings.image_batches or (len(batch) + 1) * len(pixels) > PATCHES_PER_BATCH:
                yield from self._encode_batch(batches.pop(grid), grid)
        for grid, batch in batches.items():
            yield from self._encode_batch(batch, grid)

    def _encode_batch(self, batch: Sequence[tuple[str, Tensor]], grid: tuple[int, int]) -> Iterator[tuple[str, Tensor]]:
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
                raise DataError(f"image '{path}' changed during the run.", "Run again once it is written.")
            with Pil.open(BytesIO(data)) as file:
                picture = (ImageOps.exif_transpose(file) or file).convert("RGB")
            out = self.processor(images=[picture], return_tensors="pt")
        except (OSError, ValueError, SyntaxError, Pil.DecompressionBombError) as error:
            raise _unreadable(path, error) from error
        _, h, w = out["image_grid_thw"][0].tolist()
        return out["pixel_values"], (h, w)

    def _key(self, data: bytes) -> str:
        return hashlib.sha256(data + b"\0" + self._identity).hexdigest()

    def _prefetch(self, keys: Sequence[str]) -> None:
        for key in keys:
            if len(self._prefetched) >= MAX_PREFETCHED:
                return
            if key not in self._prefetched and not self.cache.has(key):
                self._prefetched[key] = self._reader.submit(self._read, key)

    @cached_property
    def _reader(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "leverplus-images")


def _unreadable(path: str, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return DataError(f"image '{path}' cannot be read: {reason}.", "Check the file and the image folder.")
