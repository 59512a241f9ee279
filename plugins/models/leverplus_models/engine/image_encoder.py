"""Image files to visual tokens: read in threads ahead of need, encoded once, images of one size as a batch."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leverplus_core import DataError, PictureError, PictureSettings
from leverplus_models.engine.device import image_cache_bytes, moved, out_of_memory, token_budget, too_large
from leverplus_models.engine.image_cache import ImageCache
from leverplus_models.engine.pixels import Patches
from leverplus_models.engine.settings import EngineSettings

PATCHES_PER_BATCH = 4096
"""Patches per pass of the vision tower on a CPU: 256 demo pictures or two photos of 640 x 480. More are no faster."""
FEWEST_PATCHES = 64
"""Patches per pass on a CPU, where smaller matrices are multiplied in another order: an image's last bits must not
depend on which others were encoded before it, here or by another process. Fewer are filled up by repetition."""
PATCHES_PER_TOKEN = 2
"""On a GPU, patches per pass for each token of a pass of the language model: a patch takes less memory."""
MAX_READERS = 16
"""Threads that read images for a GPU; for a CPU one does."""
MAX_PREFETCHED = 256
"""Images that are read before they are needed."""
RAMP = 8
"""Of images that no one has asked to be read in advance, the first batch for a GPU is a whole batch divided by this, so
that the tower starts when these have been read; each following one is twice as large."""
MAX_LAYOUTS = 64
"""Shapes of batches whose positions and windows are remembered."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The cache key of an image file's features, and its grid (h, w) of visual tokens."""

    key: str
    grid: tuple[int, int]


class ImageEncoder:
    """Encodes the images of one model.

    `version` identifies the weights; `folder`, if given, keeps the features for later runs; `reader` opens the files.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        version: str,
        settings: EngineSettings,
        folder: Path | None,
        reader: PictureSettings | None = None,
    ) -> None:
        self.model, self.processor, self.settings, self.reader = model, processor, settings, reader or PictureSettings()
        self.cache = ImageCache(image_cache_bytes(model.device, settings), folder, later=model.device.type == "cuda")
        self.patches = PATCHES_PER_BATCH
        if model.device.type != "cpu":
            self.patches = max(PATCHES_PER_BATCH, PATCHES_PER_TOKEN * token_budget(model, settings))
        size = processor.size
        identity = [version, str(model.dtype), size.shortest_edge, size.longest_edge, type(processor).__name__]
        identity.append(self.reader.background)
        self._identity = json.dumps(identity).encode()
        self._infos: dict[tuple[str | int, ...], ImageInfo] = {}
        self._paths: dict[str, str] = {}
        self._prefetched: dict[str, Future[Tensor]] = {}
        self._layouts: dict[tuple[tuple[int, int], int], tuple[Tensor, dict[str, Any]]] = {}

    def inspect(self, path: str) -> ImageInfo:
        """Key and grid of the file at `path`, without decoding it. A file that has changed is another image.

        Raises DataError for a file that is missing or is no image.
        """
        try:
            stat = os.stat(path)
        except (OSError, ValueError) as error:
            raise PictureError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
        # A file that is replaced may keep its size and its time of change; its inode's time of change is new.
        stamp = (path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
        if stamp not in self._infos:
            self._infos[stamp] = self._read_header(path)
        return self._infos[stamp]

    def inspect_all(self, paths: Sequence[str]) -> None:
        """Inspect many files at once, for a GPU that would wait; a bad file is named when it is inspected itself."""
        if self._readers > 1:
            list(self._reader.map(self._try_inspect, dict.fromkeys(paths)))

    @torch.inference_mode()
    def encode(self, keys: Sequence[str], upcoming: Sequence[str]) -> Mapping[str, Tensor]:
        """Key -> visual tokens (h * w, D). The images of `upcoming` are read meanwhile in other threads.

        Without the image cache, an image is read and encoded as often as its key occurs. Raises DataError for a file
        that cannot be read or that has changed since it was inspected.
        """
        if not self.settings.image_cache:
            return dict(self._encode(keys))
        wanted = list(dict.fromkeys(keys))
        if self._readers > 1:
            self.cache.read_ahead([*wanted, *upcoming], self._reader)
        found = self.cache.get(wanted, self.model.device)
        missing = [key for key in wanted if key not in found]
        expected = all(key in self._prefetched for key in missing)
        room = MAX_PREFETCHED - len(self._prefetched)
        needed = len(missing) if self._readers > 1 else 0  # one reader would keep this thread waiting
        self._prefetch([*missing, *(key for key in upcoming if key not in found)][: max(room, needed)])
        for key, tokens in self._encode(missing, 1 if expected or self._readers == 1 else RAMP):
            self.cache.put(key, tokens)
            found[key] = tokens
        return found

    def _try_inspect(self, path: str) -> None:
        with suppress(DataError):
            self.inspect(path)

    def _read_header(self, path: str) -> ImageInfo:
        data = self.reader.read_file(path)
        try:
            width, height = self._pixels.size(*self.reader.picture_size(data, path))
        except ValueError as error:  # far longer than high
            raise PictureError(path, f"cannot be read: {error}") from error
        side = self.processor.patch_size * self.processor.merge_size
        key = self._key(data)
        self._paths[key] = path
        return ImageInfo(key, (height // side, width // side))

    def _encode(self, keys: Sequence[str], ramp: int = 1) -> Iterator[tuple[str, Tensor]]:
        batches: dict[tuple[int, int], list[tuple[str, Tensor]]] = {}
        for key in keys:
            prefetched = self._prefetched.pop(key, None)
            picture = prefetched.result() if prefetched else self._read(key)
            side = self.processor.patch_size
            h, w = picture.shape[1] // side, picture.shape[2] // side
            batch = batches.setdefault((h, w), [])
            batch.append((key, picture))
            if not self.settings.image_batches or (len(batch) + 1) * h * w > self.patches // ramp:
                ramp = max(1, ramp // 2)
                yield from self._encode_batch(batches.pop((h, w)), (h, w))
        for grid, batch in batches.items():
            yield from self._encode_batch(batch, grid)

    def _encode_batch(self, batch: Sequence[tuple[str, Tensor]], grid: tuple[int, int]) -> Iterator[tuple[str, Tensor]]:
        try:
            pictures = [picture for _, picture in batch]
            if self._readers == 1 and self.settings.image_batches:
                each = grid[0] * grid[1]
                fewest = min(math.ceil(FEWEST_PATCHES / each), self.patches // each)
                pictures += pictures[-1:] * (fewest - len(batch))
            grids, layout = self._layout(grid, len(pictures))
            pixels = self._pixels.of(pictures)
            encoded = self.model.get_image_features(pixels, grids, **layout).pooler_output
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(batch) == 1:
                path = self._paths[batch[0][0]]
                raise too_large(f"image '{path}'", self.model.device, error) from error
            encoded = None
        if encoded is None:  # outside the handler, which holds on to the memory of what failed
            half = (len(batch) + 1) // 2
            self.patches = min(self.patches, half * grid[0] * grid[1])
            yield from self._encode_batch(batch[:half], grid)
            yield from self._encode_batch(batch[half:], grid)
            return
        for (key, _), tokens in zip(batch, encoded, strict=False):  # of those that fill the pass none
            yield key, tokens.clone()

    def _layout(self, grid: tuple[int, int], count: int) -> tuple[Tensor, dict[str, Any]]:
        """The grids of `count` images of `grid` patches, and what the tower would compute from them at every pass.

        Where transformers takes that as arguments, the grids stay on the processor, and no pass waits to read them.
        """
        device, vision = self.model.device, self.model.config.vision_config
        if (grid, count) not in self._layouts:
            grids = torch.tensor([(1, *grid)] * count)
            layout: dict[str, Any] = {}
            with suppress(ImportError):
                from transformers.vision_utils import (
                    get_vision_cu_seqlens,
                    get_vision_position_ids,
                    get_vision_window_index,
                )

                index, windows = get_vision_window_index(
                    grids, vision.spatial_merge_size, vision.window_size, vision.patch_size
                )
                layout = {
                    "position_ids": moved(get_vision_position_ids(grids, vision.spatial_merge_size), device),
                    "cu_seqlens": moved(get_vision_cu_seqlens(grids), device),
                    "window_index": moved(index, device),
                    "cu_window_seqlens": moved(windows, device),
                }
                if device.type == "cuda":
                    layout["longest"] = grid[0] * grid[1]
            while len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.pop(next(iter(self._layouts)))
            self._layouts[grid, count] = (grids if layout else moved(grids, device)), layout
        return self._layouts[grid, count][0], dict(self._layouts[grid, count][1])

    def _read(self, key: str) -> Tensor:
        path = self._paths[key]
        data = self.reader.read_file(path)
        if self._key(data) != key:
            raise DataError(f"image '{path}' changed during the run.", "Run again once it is written.")
        return self._pixels.picture(data, path)

    def _key(self, data: bytes) -> str:
        return hashlib.sha256(data + b"\0" + self._identity).hexdigest()

    def _prefetch(self, keys: Sequence[str]) -> None:
        for key in keys:
            if key not in self._prefetched and not self.cache.has(key):
                self._prefetched[key] = self._reader.submit(self._read, key)

    @cached_property
    def _reader(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._readers, "leverplus-images")

    @property
    def _readers(self) -> int:
        return 1 if self.model.device.type == "cpu" else min(MAX_READERS, os.cpu_count() or 1)

    @cached_property
    def _pixels(self) -> Patches:
        return Patches(self.processor, self.model.dtype, self.model.device, self.reader)
