"""What the folder of artifacts holds, and how it is made smaller.

Nothing in it is needed to read results: whatever is removed is computed again when a run needs it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from leverplus_core.errors import StorageError
from leverplus_core.io import storage_errors
from leverplus_core.pipeline.lease import held_by
from leverplus_core.pipeline.workspace import StageFolder
from leverplus_core.registry.registry import Registry
from leverplus_core.scoring.cache import DAY_S, ResponseCache, older_responses

RESPONSES, IMAGES = "responses of the model", "encoded images"


@dataclass(frozen=True)
class Stored:
    """One thing in the folder: the folder of a stage, the file of responses, or a file of encoded images.

    `kind` is the stage's name, RESPONSES or IMAGES; `written` is when it was last written, in seconds since 1970. With
    `before_day` it is the `number` of responses in the file that are older than that day since 1970.
    """

    kind: str
    path: Path
    bytes: int
    written: float
    number: int = 1
    before_day: int | None = None

    def remove(self) -> None:
        """Raises StorageError where it cannot be removed, or a process is computing it."""
        if self.before_day is not None:
            with closing(ResponseCache(self.path)) as responses:
                responses.prune(self.before_day)
            return
        is_stage = self.path.is_dir()
        if is_stage and (holder := held_by(self.path)):
            raise StorageError(f"{self.path} is being computed by {holder}.", "Stop it first, or wait for its end.")
        with storage_errors(self.path):
            if is_stage:
                StageFolder(self.path).reopen()  # the mark that it is finished goes first
                shutil.rmtree(self.path)
                return
            for file in (self.path, *(self.path.with_name(f"{self.path.name}{end}") for end in ("-wal", "-shm"))):
                file.unlink(missing_ok=True)


def stored(work: Path) -> list[Stored]:
    """Everything of size in the folder `work`; empty where there is none."""
    found = [
        _stored(path.name.rpartition("-")[0] or path.name, path)
        for path in sorted((work / "stages").glob("*"))
        if path.is_dir()
    ]
    if (responses := work / "responses.sqlite").is_file():
        found.append(_stored(RESPONSES, responses))
    found += [_stored(IMAGES, path) for path in sorted((work / "cache").rglob("*")) if path.is_file()]
    return found


def older_than(things: Iterable[Stored], days: float) -> list[Stored]:
    """Those that were last written so many days ago or earlier, and of the other responses those that are as old."""
    before, known = time.time() - days * DAY_S, list(things)
    found = [thing for thing in known if thing.written <= before]
    for thing in known:
        if thing.kind == RESPONSES and thing.written > before:
            number, size = older_responses(thing.path, day := int(before // DAY_S))
            found += [replace(thing, bytes=size, number=number, before_day=day)] if number else []
    return found


def folders_of(registry: Registry, run_ids: Sequence[str]) -> list[Stored]:
    """The folders of the stages of these runs that no other run of the registry has."""
    found = []
    for text, runs in registry.stage_folders().items():
        path = Path(text)
        if text and runs <= set(run_ids) and path.parent.name == "stages" and path.is_dir():  # not an imported folder
            found.append(_stored(path.name.rpartition("-")[0], path))
    return found


def by_kind(things: Iterable[Stored]) -> Mapping[str, list[Stored]]:
    """The things of each kind, the largest kind first."""
    found: dict[str, list[Stored]] = {}
    for thing in things:
        found.setdefault(thing.kind, []).append(thing)
    return dict(sorted(found.items(), key=lambda item: -sum(thing.bytes for thing in item[1])))


def _stored(kind: str, path: Path) -> Stored:
    beside = [path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm")]
    files = (
        [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path, *filter(Path.exists, beside)]
    )
    known = [os.stat(file) for file in files]
    written = max((stat.st_mtime for stat in known), default=path.stat().st_mtime)
    return Stored(kind, path, sum(stat.st_size for stat in known), written)
