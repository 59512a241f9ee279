"""Photos to patches, as `Qwen2VLImageProcessorPil` of transformers makes them, bit for bit, in two halves.

Photos of more than four megapixels are the exception: they are reduced as they are decoded (`leverplus_core.pictures`).
Reading and resizing give bytes, an eighth of the patches' memory, and leave Python's lock to other threads; the rest is
a table with the normalized value of each byte and a permutation, on the model's own device, many photos at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from leverplus_core import PictureSettings
from leverplus_models.engine.device import to_device


class Patches:
    """Patches of the photos that `processor` would prepare, for a model on `device`."""

    def __init__(
        self, processor: Any, dtype: torch.dtype, device: torch.device, reader: PictureSettings | None = None
    ) -> None:
        self.processor, self.device, self.reader = processor, device, reader or PictureSettings()
        levels: Any = np.tile(np.arange(256, dtype=np.uint8), (3, 1, 1))  # (channel, 1, byte)
        if processor.do_rescale:
            levels = processor.rescale(levels, processor.rescale_factor)
        if processor.do_normalize:
            levels = processor.normalize(levels, processor.image_mean, processor.image_std)
        self._levels = torch.from_numpy(np.asarray(levels, dtype=np.float32).ravel()).to(device, dtype)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) to which a photo of that size is resized."""
        p = self.processor
        size = p.size.shortest_edge, p.size.longest_edge
        h, w = smart_resize(height, width, p.patch_size * p.merge_size, *size)
        return w, h

    def picture(self, data: bytes, path: str) -> Tensor:
        """(3, H, W) the bytes of an image file's pixels, upright, resized. Raises DataError with `path` for damage."""
        if not self.processor.do_resize:
            return _channels_first(self.reader.read_picture(data, path))
        return _channels_first(self.reader.read_picture(data, path, self.size, self.processor.resample))

    def of(self, pictures: Sequence[Tensor]) -> Tensor:
        """(B * P, 3 * frames * side * side) the P patches of each of B pictures of one size."""
        p = self.processor
        bytes_ = to_device(torch.stack(list(pictures)).numpy(), self.device)  # (B, 3, H, W)
        place = bytes_.int().add_(torch.arange(0, 768, 256, device=self.device, dtype=torch.int32)[:, None, None])
        count, channels, height, width = place.shape
        down, right = height // p.patch_size // p.merge_size, width // p.patch_size // p.merge_size
        values = self._levels.index_select(0, place.view(-1)).view(
            count, channels, down, p.merge_size, p.patch_size, right, p.merge_size, p.patch_size
        )
        values = values.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
        frames = values.expand(-1, -1, -1, -1, -1, -1, p.temporal_patch_size, -1, -1)
        return frames.reshape(count * down * right * p.merge_size**2, -1)


def _channels_first(picture: Any) -> Tensor:
    return torch.from_numpy(np.array(picture).transpose(2, 0, 1).copy())
