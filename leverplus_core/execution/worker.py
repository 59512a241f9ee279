"""A worker: builds the model by name and settings where it runs, and computes chunks.

What it answers is a `Reply`, errors included, so that whoever asked raises them with their trace, and a transport has
nothing to know of them. Its model must be the one of the process that asks: equal code, settings and checkpoint.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leverplus_core.errors import LeverplusWarning, PluginError
from leverplus_core.execution.contract import Chunk
from leverplus_core.io import canonical_json
from leverplus_core.plugins.contracts import Model, Part, SupportsCacheFolder, SupportsLookahead
from leverplus_core.plugins.manager import Catalog
from leverplus_core.processes import let_threads_sleep, this_host


@dataclass(frozen=True)
class ModelSpec:
    """What a worker builds its model from.

    `identity` is what the model's must be; `plugins` are files that the catalog reads beside what is installed, and
    `disabled` the distributions that it leaves out. `folder` and `path` are the working folder and the import path of
    the process that asks, taken over where they exist; `cache` is a folder that the workers may share.
    """

    name: str
    settings: Mapping[str, Any]
    identity: object
    threads: int
    plugins: tuple[str, ...] = ()
    disabled: str = ""
    folder: str = ""
    path: tuple[str, ...] = ()
    cache: str = ""

    @classmethod
    def of(
        cls, name: str, settings: Mapping[str, Any], identity: object, threads: int, catalog: Catalog, cache: Path
    ) -> ModelSpec:
        """The model `name` as this process would build it."""
        return cls(
            name, settings, identity, threads, tuple(str(Path(file).resolve()) for file in catalog.files),
            catalog.disabled, os.getcwd(), tuple(sys.path), str(cache.resolve()),
        )  # fmt: skip


def part_identity(catalog: Catalog, kind: str, name: str, part: Part) -> list[object]:
    """What must be equal for a part to give equal results: its class, settings, content and code."""
    return [catalog.entry(kind, name).target, part.identity(), catalog.identity(kind, name)]


class _InWorker(Exception):
    """The trace of an error as the worker saw it, for the error that is raised here."""

    def __str__(self) -> str:
        return f"in a worker\n{self.args[0]}"


@dataclass(frozen=True)
class Reply:
    """What a worker answers: a value, or the error that it raised with its trace; and what it warned of."""

    value: Any = None
    error: BaseException | None = None
    trace: str = ""
    warned: tuple[str, ...] = ()

    def get(self) -> Any:
        """The value. Raises the error; warns as the worker did."""
        for message in self.warned:
            warnings.warn(message, LeverplusWarning, stacklevel=2)
        if self.error is not None:
            raise self.error from _InWorker(self.trace)
        return self.value


class Worker:
    """Builds a model once and computes chunks with it."""

    def __init__(self) -> None:
        self._model: Model | None = None

    def place(self) -> str:
        """Where this is, in words."""
        return f"process {os.getpid()} on {this_host()}"

    def start(self, spec: ModelSpec) -> Reply:
        """Build the model; the reply's value says whether it makes use of being told what comes next.

        The reply's error is a PluginError for a model that is not the one of the process that asks.
        """
        return self._replying(lambda: self._start(spec))

    def compute(self, chunk: Chunk, following: Chunk | None = None) -> Reply:
        """The results of a chunk; `following` is asked next."""
        return self._replying(lambda: self._compute(chunk, following))

    def _start(self, spec: ModelSpec) -> bool:
        let_threads_sleep()
        import torch

        if os.path.isdir(spec.folder):
            os.chdir(spec.folder)  # relative paths of images, checkpoints and settings are those of who asks
        sys.path += [entry for entry in spec.path if entry and entry not in sys.path and os.path.exists(entry)]
        torch.set_num_threads(spec.threads)
        catalog = Catalog.load([Path(file) for file in spec.plugins], disabled=spec.disabled)
        model: Model = catalog.build("model", spec.name, spec.settings)
        _check_identity(spec, part_identity(catalog, "model", spec.name, model))
        if isinstance(model, SupportsCacheFolder) and os.path.isdir(os.path.dirname(spec.cache)):
            model.use_cache_folder(Path(spec.cache))
        self._model = model
        return isinstance(model, SupportsLookahead)

    def _compute(self, chunk: Chunk, following: Chunk | None) -> Any:
        assert self._model is not None
        if following is not None:
            following.expect(self._model)
        return chunk.compute(self._model)

    def _replying(self, call: Callable[[], Any]) -> Reply:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", LeverplusWarning)
            try:
                value, error, trace = call(), None, ""
            except BaseException as raised:
                value, error, trace = None, _portable(raised), traceback.format_exc()
        told: list[str] = []
        for warning in caught:
            if issubclass(warning.category, LeverplusWarning):
                told.append(str(warning.message))
            else:  # a library's
                warnings.showwarning(warning.message, warning.category, warning.filename, warning.lineno)
        return Reply(value, error, trace, tuple(dict.fromkeys(told)))


def _check_identity(spec: ModelSpec, found: list[object]) -> None:
    # Through JSON: a tuple of settings is a list after its way through a file.
    wanted, here = (json.loads(canonical_json(identity)) for identity in (spec.identity, found))
    if wanted == here:
        return
    differs = sorted(
        f"{key} is {ours.get(key)!r} here and {theirs.get(key)!r} there"
        for theirs, ours in zip(wanted[1:], here[1:], strict=True)
        for key in {*ours, *theirs}
        if ours.get(key) != theirs.get(key)
    )
    raise PluginError(
        f"the worker on {this_host()} would compute with another model '{spec.name}' than the process that asks: "
        f"{'; '.join(differs) or f'{here[0]} here and {wanted[0]} there'}.",
        "Install the same versions of leverplus and its plugins, and the same checkpoint, on every machine.",
    )


def _portable(error: BaseException) -> Exception:
    """The error, if it comes out of a pickle as it went in, and is no exit; else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
        if isinstance(error, Exception):
            return error
    except Exception:
        pass
    return RuntimeError(f"{type(error).__name__}: {error}")
