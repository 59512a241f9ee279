"""A cache of encoded images: in memory up to a bound, and in a folder that runs can share.

A key is the hash of everything that decides the features: the image's bytes, the model, the pixel settings and the
number format. The features of an image are one safetensors file, written atomically, so that several processes may use
one folder. A damaged file is deleted and its image encoded again; when the folder cannot be written, the cache stays in
memory. Each is warned about once.

On a GPU, files are written by a thread: one waits for its features, and what starts kernels must not.
"""

from __future__ import annotations

import os
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from leverplus_core import LeverplusWarning
from leverplus_models.engine.device import moved

MOST_WAITING = 64
"""Images that wait to be written; then the next one waits for the first."""

MOST_READ = 256
"""Images whose files are read before they are asked for."""


class ImageCache:
    """Key -> visual tokens (V, D) of an image; beyond `limit` bytes the least recently used leave memory.

    With `later`, a thread writes the files; `settle` waits for it and says what went wrong.
    """

    def __init__(self, limit: int, folder: Path | None = None, later: bool = False) -> None:
        self.limit, self.folder, self.later = limit, folder, later
        self.bytes = 0
        self._waiting: dict[str, Future[OSError | None]] = {}
        self._reading: dict[str, Future[Tensor | str | None]] = {}
        self._memory: OrderedDict[str, Tensor] = OrderedDict()
        self._warned: set[str] = set()

    def get(self, keys: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """The features of those `keys` that are cached, on `device`."""
        found: dict[str, Tensor] = {}
        for key in keys:
            if key in self._memory:
                self._memory.move_to_end(key)
                found[key] = self._memory[key]
                continue
            if key in self._waiting:
                self._written(key)
            if (read := self._read(key)) is not None:
                found[key] = moved(read, device)
                self._remember(key, found[key])
        return found

    def read_ahead(self, keys: Sequence[str], readers: ThreadPoolExecutor) -> None:
        """Let `readers` read the files of those `keys` that have one and are not in memory, for `get`."""
        for key in keys:
            known = key in self._memory or key in self._waiting or key in self._reading
            if self.folder is not None and not known and len(self._reading) < MOST_READ:
                path = self._file(self.folder, key)
                if path.exists():
                    self._reading[key] = readers.submit(_load, path, key)

    def put(self, key: str, features: Tensor) -> None:
        """Store `features` under `key`, in memory and in the folder."""
        self._remember(key, features)
        if self.folder is None:
            return
        if not self.later:
            self._failed(_write(self._file(self.folder, key), key, features.detach().cpu(), None))
            return
        if len(self._waiting) >= MOST_WAITING:
            self._written(next(iter(self._waiting)))
        copy = torch.empty_like(features, device="cpu", pin_memory=features.is_cuda)
        copy.copy_(features.detach(), non_blocking=True)
        copied = torch.cuda.current_stream(features.device).record_event() if features.is_cuda else None
        if self.folder is not None:  # the file before this one may have failed
            self._waiting[key] = self._writer.submit(_write, self._file(self.folder, key), key, copy, copied)

    def settle(self, wait: bool = True) -> None:
        """Warn of files that could not be written; with `wait`, once all have been tried."""
        for key in [key for key, writing in self._waiting.items() if wait or writing.done()]:
            self._written(key)

    def has(self, key: str) -> bool:
        """Whether `key` is in memory or has a file; the file may turn out to be damaged."""
        if key in self._memory or key in self._waiting:
            return True
        return self.folder is not None and self._file(self.folder, key).exists()

    def _remember(self, key: str, features: Tensor) -> None:
        self._memory[key] = features
        self.bytes += features.nbytes
        while self.bytes > self.limit:
            self.bytes -= self._memory.popitem(last=False)[1].nbytes

    def _read(self, key: str) -> Tensor | None:
        if self.folder is None:
            return None
        path = self._file(self.folder, key)
        found = self._reading.pop(key).result() if key in self._reading else _load(path, key)
        if not isinstance(found, str):
            return found
        self._warn("damaged", f"the encoded image {path} is damaged ({found}); it is deleted and encoded again.")
        with suppress(OSError):  # in a read-only folder the next run finds it again
            path.unlink(missing_ok=True)
        return None

    def _written(self, key: str) -> None:
        """Wait until the file of `key` is written."""
        self._failed(self._waiting.pop(key).result())

    def _failed(self, error: OSError | None) -> None:
        if error is not None and self.folder is not None:
            self._warn(
                "unwritable",
                f"encoded images cannot be written to {self.folder} ({error.strerror or error}); "
                "this run continues with the cache in memory.",
            )
            self.folder = None

    @cached_property
    def _writer(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "leverplus-features")

    @staticmethod
    def _file(folder: Path, key: str) -> Path:
        return folder / key[:2] / f"{key}.safetensors"

    def _warn(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(message, LeverplusWarning, stacklevel=2)


def _load(path: Path, key: str) -> Tensor | str | None:
    """The features in a file; None where there is none, and what is wrong with a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            features: Tensor = file.get_tensor("features")
            metadata = file.metadata()
        if metadata["key"] == key and metadata["crc32"] == _checksum(features):
            return features
        return "its content is not what was written"
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        return str(error)


def _write(path: Path, key: str, features: Tensor, copied: torch.cuda.Event | None) -> OSError | None:
    """Write the features, once they have been `copied` from a GPU; returns what kept them from being written."""
    if copied is not None:
        copied.synchronize()
    # Written under a name of this process's own and renamed: a reader sees the whole file or none.
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    features = features.contiguous()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch.write_bytes(save({"features": features}, {"key": key, "crc32": _checksum(features)}))
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        return error
    return None


def _checksum(features: Tensor) -> str:
    return f"{zlib.crc32(features.contiguous().view(torch.uint8).numpy().tobytes()):08x}"
