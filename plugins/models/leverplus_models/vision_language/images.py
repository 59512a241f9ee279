"""Images of any vision-language model of transformers: encoded once by the model's own `get_image_features`.

What the language part reads of an image is kept in the cache of encoded images (`engine.image_cache`), as one tensor
(V, D * (1 + deep)): the visual tokens, and beside them the deep features of models that have some (DeepStack, Meng et
al. 2024, arXiv:2406.04334). A batch gets them back as the output that its `forward` takes in place of pixels.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from leverplus_core import DataError, PictureError, PictureSettings
from leverplus_models.engine.device import image_cache_bytes, out_of_memory, too_large
from leverplus_models.engine.image_cache import ImageCache
from leverplus_models.engine.settings import EngineSettings
from leverplus_models.vision_language.chat import Chat, ImageTokens

Wanted = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class KnownImage:
    """An image file: the key of its features, its tokens, and the small tensors from which positions are computed."""

    key: str
    tokens: ImageTokens
    layout: Mapping[str, Tensor]


class Images:
    """Reads and encodes the images of one model. `version` identifies the weights, `wanted` the size of a picture."""

    def __init__(
        self,
        model: Any,
        chat: Chat,
        version: str,
        settings: EngineSettings,
        folder: Path | None,
        reader: PictureSettings,
        wanted: Wanted | None,
    ) -> None:
        self.model, self.chat, self.reader, self.wanted = model, chat, reader, wanted
        self.cache = ImageCache(image_cache_bytes(model.device, settings), folder, later=model.device.type == "cuda")
        encoder = getattr(model.base_model, "get_image_features", None)
        takes = "mm_encoder_outputs" in inspect.signature(model.forward).parameters
        self.encoded = settings.image_cache and takes and encoder is not None
        """Whether the model takes encoded images; otherwise it encodes the pixels of each batch."""
        self._encoder = encoder
        self._encoder_takes = set(inspect.signature(encoder).parameters) if encoder is not None else set()
        rope = getattr(model.base_model, "get_rope_index", None)
        self.rope = rope
        self._rope_takes = set(inspect.signature(rope).parameters) if rope is not None else set()
        processor = chat.processor.image_processor
        identity = [version, str(model.dtype), type(processor).__name__, processor.to_dict(), chat.options]
        identity += [reader.background, wanted and [wanted(1000, 1000), wanted(4000, 1000)]]
        self._identity = json.dumps(identity, sort_keys=True, default=str).encode()
        self._known: dict[tuple[str | int, ...], KnownImage] = {}
        self._by_key: dict[str, KnownImage] = {}
        self._tokens: dict[tuple[str, bytes, str], ImageTokens] = {}
        self._paths: dict[str, str] = {}
        self._output: type[Any] | None = None
        self._per_tile: int | None = None
        self._deep = 0

    def inspect(self, path: str) -> KnownImage:
        """What is known of the file at `path`. A file that has changed is another image.

        Raises PictureError for a file that is missing or no image, or that the processor refuses.
        """
        try:
            stat = os.stat(path)
        except (OSError, ValueError) as error:
            raise PictureError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
        stamp = (path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)
        if stamp not in self._known:
            data = self.reader.read_file(path)
            key = hashlib.sha256(data + b"\0" + self._identity).hexdigest()
            tokens, tensors = self._processed(data, path)
            self._paths[key] = path
            # Images of one size have the same tokens, which are held once.
            tokens = self._tokens.setdefault((tokens.before, tokens.ids.tobytes(), tokens.after), tokens)
            layout = {name: value for name, value in tensors.items() if name in self._rope_takes}
            self._known[stamp] = self._by_key[key] = KnownImage(key, tokens, layout)
            if self.encoded and (self._output is None or not self.cache.has(key)):
                self.cache.put(key, self._encode(tensors, path))
        return self._known[stamp]

    def known(self, keys: Sequence[str]) -> list[KnownImage]:
        """What is known of images that were inspected."""
        return [self._by_key[key] for key in keys]

    def picture(self, key: str) -> Any:
        """The picture of a key, as the processor is given it. Raises DataError for a file that has changed."""
        data, path = self._data(key)
        return self._read(data, path)

    def features(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """Key -> (V, D * (1 + deep)); what is in neither memory nor the folder is encoded."""
        found = self.cache.get(list(dict.fromkeys(keys)), self.model.device)
        for key in keys:
            if key not in found:
                data, path = self._data(key)
                found[key] = self._encode(self._processed(data, path)[1], path)
                self.cache.put(key, found[key])
        return found

    def visual_tokens(self, keys: Sequence[str]) -> dict[str, Tensor]:
        """Key -> (V, D), without deep features."""
        found = self.features(keys)
        return {key: value[:, : value.shape[1] // (1 + self._deep)] for key, value in found.items()}

    def encoder_output(self, keys: Sequence[str]) -> Any:
        """What `get_image_features` would return for these images, in order."""
        features = self.features(keys)
        width = next(iter(features.values())).shape[1] // (1 + self._deep)
        parts = [features[key].split(width, dim=1) for key in keys]
        if self._per_tile is None:
            pooled: Any = [part[0] for part in parts]
        else:
            pooled = torch.cat([part[0] for part in parts]).view(-1, self._per_tile, width)
        assert self._output is not None
        more = {"deepstack_features": [[p[1 + n] for p in parts] for n in range(self._deep)]} if self._deep else {}
        return self._output(pooler_output=pooled, **more)

    def pixels(self, rows: Sequence[Sequence[str]]) -> dict[str, Any]:
        """The tensors of the images of several prompts, as the processor makes them, on the model's device."""
        shown = [[self.picture(key) for key in keys] for keys in rows if keys]
        return self.on_device(self.chat.pixels(shown)) if shown else {}

    def on_device(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Tensors on the model's device; numbers that are not whole in its dtype."""
        found = {}
        for name, value in tensors.items():
            if isinstance(value, Tensor):
                value = value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)
            found[name] = value
        return found

    def _processed(self, data: bytes, path: str) -> tuple[ImageTokens, dict[str, Any]]:
        picture = self._read(data, path)
        try:
            return self.chat.of_image(picture)
        except (ValueError, RuntimeError, TypeError) as error:  # far longer than high, of one pixel
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise PictureError(path, f"is refused by the processor: {said[:200]}") from error

    def _read(self, data: bytes, path: str) -> Any:
        if self.wanted is None:
            return self.reader.read_picture(data, path)
        from PIL.Image import Resampling

        return self.reader.read_picture(data, path, self.wanted, Resampling.BICUBIC)

    def _data(self, key: str) -> tuple[bytes, str]:
        path = self._paths[key]
        data = self.reader.read_file(path)
        if hashlib.sha256(data + b"\0" + self._identity).hexdigest() != key:
            raise DataError(f"image '{path}' changed during the run.", "Run again once it is written.")
        return data, path

    @torch.inference_mode()
    def _encode(self, tensors: Mapping[str, Any], path: str) -> Tensor:
        assert self._encoder is not None
        given = {name: value for name, value in self.on_device(tensors).items() if name in self._encoder_takes}
        try:
            output = self._encoder(**given, return_dict=True)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise too_large(f"image '{path}'", self.model.device, error) from error
        pooled, deep = output.pooler_output, getattr(output, "deepstack_features", None) or []
        self._output = type(output)
        self._per_tile = pooled.shape[1] if isinstance(pooled, Tensor) and pooled.ndim == 3 else None
        self._deep = len(deep)
        return torch.cat([_flat(pooled), *map(_flat, deep)], dim=-1).clone()


def _flat(features: Any) -> Tensor:
    """(V, D) of one image, from a tensor of tiles or a list of tensors."""
    tensors = [features] if isinstance(features, Tensor) else list(features)
    return torch.cat([tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors])
