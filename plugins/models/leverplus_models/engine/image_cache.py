"""A cache of encoded images: in memory up to a bound, and in a folder that runs can share.

A key is the hash of everything that decides the features: the image's bytes, the model, the pixel settings and the
number format. The features of an image are one safetensors file, written atomically, so that several processes may use
one folder. A damaged file is deleted and its image encoded again; when the folder cannot be written, the cache stays in
memory. Each is warned about once.
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

from leverplus_core import LeverplusWarning


class ImageCache:
    """Key -> visual tokens (V, D) of an image; beyond `limit` bytes the least recently used leave memory."""

    def __init__(self, limit: int, folder: Path | None = None) -> None:
        self.limit, self.folder = limit, folder
        self.bytes = 0
        self._memory: OrderedDict[str, Tensor] = OrderedDict()
        self._warned: set[str] = set()

    def get(self, keys: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """The features of those `keys` that are cached, on `device`."""
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
        """Store `features` under `key`, in memory and in the folder."""
        self._remember(key, features)
        self._write(key, features)

    def has(self, key: str) -> bool:
        """Whether `key` is in memory or has a file; the file may turn out to be damaged."""
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
        self._warn("damaged", f"the encoded image {path} is damaged ({problem}); it is deleted and encoded again.")
        with suppress(OSError):  # in a read-only folder the next run finds it again
            path.unlink(missing_ok=True)
        return None

    def _write(self, key: str, features: Tensor) -> None:
        if self.folder is None:
            return
        path = self._file(self.folder, key)
        # Written under a name of this process's own and renamed: a reader sees the whole file or none.
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
            self._warn(
                "unwritable",
                f"encoded images cannot be written to {self.folder} ({error.strerror or error}); "
                "this run continues with the cache in memory.",
            )
            self.folder = None

    @staticmethod
    def _file(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.safetensors"

    def _warn(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(message, LeverplusWarning, stacklevel=2)


def _checksum(features: Tensor) -> str:
    return f"{zlib.crc32(features.contiguous().view(torch.uint8).numpy().tobytes()):08x}"
