"""Encoded images, kept: in memory up to a bound, and in a folder that runs share.

A key is the hash of everything that decides the features: the image's bytes, the model, the pixel settings, the
number format. The features of an image are one safetensors file, written whole or not at all, so that two runs may
use one folder. A file that is damaged is dropped and its image encoded again; a folder that cannot be written leaves
memory to do the work. Each is said once.
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from leverplus_core.errors import LeverplusWarning


class ImageFeatures:
    """Key -> features (V, D) of an image; the least recently used leave memory beyond `limit` bytes."""

    def __init__(self, limit: int, folder: Path | None = None) -> None:
        self.limit, self.folder = limit, folder
        self.bytes = 0
        self._memory: OrderedDict[str, Tensor] = OrderedDict()
        self._said: set[str] = set()

    def get(self, keys: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """Those of `keys` that are known."""
        found: dict[str, Tensor] = {}
        for key in keys:
            if key in self._memory:
                self._memory.move_to_end(key)
                found[key] = self._memory[key]
            elif (read := self._read(key)) is not None:
                found[key] = read.to(device)
                self._remember(key, found[key])
        return found

    def put(self, key: str, features: Tensor) -> None:
        """Keep `features` under `key`, in memory and in the folder."""
        self._remember(key, features)
        self._write(key, features)

    def has(self, key: str) -> bool:
        """Whether `get` is likely to know `key`: it is in memory, or there is a file."""
        return key in self._memory or (self.folder is not None and self._file(self.folder, key).exists())

    def _remember(self, key: str, features: Tensor) -> None:
        self._memory[key] = features
        self.bytes += features.nbytes
        while self.bytes > self.limit:
            self.bytes -= self._memory.popitem(last=False)[1].nbytes

    def _read(self, key: str) -> Tensor | None:
        if self.folder is None:
            return None
        path = self._file(self.folder, key)
        try:
            with safe_open(path, "pt") as file:
                features: Tensor = file.get_tensor("features")
                metadata = file.metadata()
            if metadata["key"] == key and metadata["crc32"] == _checksum(features):
                return features
            problem = "its content is not what was written"
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            problem = str(error)
        self._say("damaged", f"the encoded image {path} is damaged ({problem}); it is dropped and encoded again.")
        with suppress(OSError):  # where nothing may be written, the next run meets it again
            path.unlink(missing_ok=True)
        return None

    def _write(self, key: str, features: Tensor) -> None:
        if self.folder is None:
            return
        path = self._file(self.folder, key)
        # A name of this process's own, then a rename: a reader sees the whole file or none.
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        tensor = features.detach().cpu().contiguous()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                scratch.write_bytes(save({"features": tensor}, {"key": key, "crc32": _checksum(tensor)}))
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
        except OSError as error:
            self._say(
                "unwritable",
                f"encoded images cannot be written to {self.folder} ({error.strerror or error}); "
                "memory alone keeps them, and this run goes on.",
            )
            self.folder = None

    @staticmethod
    def _file(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.safetensors"

    def _say(self, what: str, message: str) -> None:
        if what not in self._said:
            self._said.add(what)
            warnings.warn(message, LeverplusWarning, stacklevel=2)


def _checksum(features: Tensor) -> str:
    return f"{zlib.crc32(features.contiguous().view(torch.uint8).numpy().tobytes()):08x}"
