"""Prompts as the messages of a chat, with pictures as data URLs: PNG, no larger than `max_pixels`."""

from __future__ import annotations

import base64
import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from leverplus_core import Image, PictureSettings, Prompt, Turn

CACHED_BYTES = 1 << 29
"""Data URLs that are kept: a demonstration is shown in many prompts."""


@dataclass(frozen=True)
class Picture:
    """A picture as it is sent, and a name for its content."""

    url: str
    name: str


class Pictures:
    """Image files as pictures to send, each read once as long as it is kept. Threads may ask at once."""

    def __init__(self, reader: PictureSettings, max_pixels: int) -> None:
        self._reader, self._max_pixels = reader, max_pixels
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def of(self, image: Image) -> Picture:
        """The picture of an image. Raises PictureError, with its path, for one that cannot be read."""
        path = self._reader.image_path(image)
        with self._lock:
            if found := self._kept.get(path):
                self._kept.move_to_end(path)
                return found
        found = self._read(path)
        with self._lock:
            if path not in self._kept:
                self._kept[path] = found
                self._bytes += len(found.url)
            while self._bytes > CACHED_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1].url)
        return found

    def _read(self, path: str) -> Picture:
        from PIL.Image import Resampling

        picture = self._reader.read_picture(self._reader.read_file(path), path, self._wanted, Resampling.BICUBIC)
        out = BytesIO()
        picture.save(out, "PNG", compress_level=1)
        data = out.getvalue()
        name = hashlib.sha256(data).hexdigest()[:32]
        return Picture(f"data:image/png;base64,{base64.b64encode(data).decode()}", name)

    def _wanted(self, width: int, height: int) -> tuple[int, int]:
        """A size of at most `max_pixels` with the sides' proportion."""
        shrink = min(1.0, math.sqrt(self._max_pixels / (width * height)))
        return max(1, int(width * shrink)), max(1, int(height * shrink))

    def messages(
        self, prompt: Prompt, named: bool = False, known: Collection[str] = (), bare: bool = False
    ) -> list[dict[str, Any]]:
        """A prompt in OpenAI's format. `named` adds vLLM's name of each image and leaves out those that are `known`;
        `bare` has marks where images are, for a chat template."""

        def part(piece: str | Image) -> dict[str, Any]:
            if isinstance(piece, str):
                return {"type": "text", "text": piece}
            if bare:
                return {"type": "image"}
            picture = self.of(piece)
            shown = {"type": "image_url", "image_url": {"url": picture.url}}
            if not named:
                return shown
            return {**shown, "uuid": picture.name, **({"image_url": None} if picture.name in known else {})}

        def content(turn: Turn) -> Any:
            # A turn of text alone as text: not every server takes a list for the system's or the assistant's.
            texts = [piece for piece in turn.content if isinstance(piece, str)]
            if len(texts) == len(turn.content) and not bare:
                return "".join(texts)
            return [part(piece) for piece in turn.content]

        return [{"role": turn.role, "content": content(turn)} for turn in prompt.turns]


def images_of(prompt: Prompt) -> list[Image]:
    """The images of a prompt in reading order."""
    return [piece for turn in prompt.turns for piece in turn.content if isinstance(piece, Image)]
