"""The response cache: a model computes nothing twice.

`CachedModel` stands in front of a model. A prompt is addressed by the content of everything that decides the response:
the model's identity, the prompt with the bytes of its images, and the answer or the decoding. Responses are kept with
their raw text in one SQLite file of the workspace, written after each chunk, so that a killed run loses one chunk and
several runs can share it.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import cached_property
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, TypeVar

from leverplus_core.errors import DataError, PluginError, StorageError
from leverplus_core.execution.contract import Chunk, Executor, GenerateChunk, InProcess, LogprobChunk, Results
from leverplus_core.io import canonical_json, fingerprint, network_file_system, storage_errors
from leverplus_core.pictures import file_digest
from leverplus_core.plugins.contracts import Floats, Model, SupportsHiddenStates
from leverplus_core.processes import lock_holder
from leverplus_core.progress import Bar, Progress, Silent
from leverplus_core.records import AnswerLogprob, Decoding, Image, Prompt
from leverplus_core.scoring.chunks import cut
from leverplus_core.scoring.meter import ANSWERS, LOGPROBS, PromptMeter

T = TypeVar("T")
START = 6
"""Bytes of a key that are of the prompt's first image."""
DAY_S = 86_400
WAL_PAGES = 16_384
"""Pages of 4 kB that SQLite collects beside the file before it writes them back: 64 MB."""
WORKER_BARS = 16
"""Workers that have a bar of their own."""


class ResponseCache:
    """Key -> JSON, in SQLite, with the day (since 1970) on which it was computed. Safe for several processes at once;
    one waits so many seconds for another.

    On a network file system one process at a time has it (`alone`): SQLite's processes share memory, which machines do
    not, and a file that two of them write is damaged.
    """

    def __init__(self, path: Path, patience: float = 60.0, alone: bool | None = None) -> None:
        self.path = path
        self._network = network_file_system(path)
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, timeout=patience)
            if self._network if alone is None else alone:
                self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            # Pages are written back once for many chunks, not with each.
            self._db.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
            self._db.execute("PRAGMA cache_size=-65536")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS responses (key BLOB PRIMARY KEY, value TEXT, day INTEGER) WITHOUT ROWID"
            )
            # A file with another table is refused here, not once the model has computed a chunk.
            self._db.execute("SELECT key, value, day FROM responses LIMIT 0")
        except sqlite3.Error as e:
            if hasattr(self, "_db"):
                self._db.close()
            raise self._failure(e, "opened") from e

    def get(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """The known ones among `keys`. Raises StorageError where the file cannot be read."""
        found: dict[bytes, str] = {}
        try:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                found.update(self._db.execute(f"SELECT key, value FROM responses WHERE key IN ({marks})", part))
        except sqlite3.Error as e:
            raise self._failure(e, "read") from e
        return found

    def put(self, rows: Sequence[tuple[bytes, str]]) -> None:
        """Add (key, JSON) rows; those that are there stay. Raises StorageError where the file cannot be written."""
        today = int(time.time() // DAY_S)
        try:
            with self._db:
                self._db.executemany(
                    "INSERT OR IGNORE INTO responses (key, value, day) VALUES (?, ?, ?)",
                    [(key, value, today) for key, value in rows],
                )
        except sqlite3.Error as e:
            raise self._failure(e, "written") from e

    def prune(self, day: int) -> None:
        """Remove the responses that `older_responses` counts, and give their space back to the disk.

        Raises StorageError where the file cannot be written, or another process has it.
        """
        try:
            with self._db:
                self._db.execute("DELETE FROM responses WHERE day < ?", (day,))
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as e:
            raise self._failure(e, "written") from e

    def _failure(self, error: sqlite3.Error, done: str) -> StorageError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte of SQLite's extended codes
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            what = f"the response cache {self.path} is locked by {lock_holder(self.path)}."
            hint = "Wait for it to finish, or end it, and run the same command."
            if self._network:
                hint = f"On a network file system ({self._network}) one run at a time has it: give each its own --work."
            return StorageError(what, hint)
        hint = "Move the file away and run again: what it holds is asked again."
        if code == sqlite3.SQLITE_FULL:
            hint = "Free some space and run the same command."
        elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
            hint = "Make it writable, or name another folder with --work."
        return StorageError(f"the response cache {self.path} cannot be {done}: {error}.", hint)

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def older_responses(file: Path, day: int) -> tuple[int, int]:
    """How many responses in a file were computed before this day (since 1970), and their bytes. Writes nothing.

    None are counted where the file cannot be read: the next run says why."""
    wanted = "SELECT count(*), total(length(key) + length(value)) FROM responses WHERE day < ?"
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as db:
            number, size = db.execute(wanted, (day,)).fetchone()
    except sqlite3.Error:
        return 0, 0
    return int(number), int(size)


class CachedModel:
    """A model behind the cache; `meter` counts what it is asked, and what of it the model had to compute."""

    def __init__(
        self,
        model: Callable[[], Model],
        identity: Callable[[], object],
        store: ResponseCache,
        progress: Progress | None = None,
        executor: Executor | None = None,
        meter: PromptMeter | None = None,
    ) -> None:
        self._load_model = model
        self._identity = identity
        self._store = store
        self._progress = progress or Silent()
        self._executor = executor or InProcess(model)
        self._images: dict[Image, str] = {}
        self.meter = meter or PromptMeter()

    @property
    def calls(self) -> int:
        """The prompts that the model itself computed."""
        return self.meter.calls

    @cached_property
    def _model(self) -> str:
        return fingerprint(self._identity())

    def close(self) -> None:
        """Close the cache."""
        self._store.close()

    def logprob(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        label: str = "log-probabilities",
        end_mark: bool = False,
    ) -> list[AnswerLogprob]:
        """`Model.logprob` through the cache. Raises DataError for a log-probability that is not finite."""

        def chunk(rows: Sequence[int]) -> Chunk:
            return LogprobChunk([prompts[i] for i in rows], [answers[i] for i in rows], end_mark)

        kind = "logprob with end mark" if end_mark else "logprob"
        keys = [self._key(kind, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        return _parsed(self._cached(prompts, keys, chunk, label), lambda value: AnswerLogprob(*value))

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding, label: str = "answers") -> list[str]:
        """`Model.generate` through the cache."""
        settings = asdict(decoding)

        def chunk(rows: Sequence[int]) -> Chunk:
            return GenerateChunk([prompts[i] for i in rows], decoding)

        keys = [self._key("generate", prompt, settings) for prompt in prompts]
        return _parsed(self._cached(prompts, keys, chunk, label), str)

    def last_hidden_state(self, prompts: Sequence[Prompt]) -> Floats:
        """`SupportsHiddenStates.last_hidden_state`: counted, but not kept. Raises PluginError for another model."""
        model = self._load_model()
        if not isinstance(model, SupportsHiddenStates):
            raise PluginError(
                f"model {type(model).__name__} does not show its hidden state.", "Leave encoder.hidden_states out."
            )
        keys = [self._key("hidden state", prompt, None) for prompt in prompts]
        self.meter.asked(keys)
        found = model.last_hidden_state(prompts)
        self.meter.computed(keys)
        return found

    def _cached(
        self,
        prompts: Sequence[Prompt],
        keys: Sequence[bytes],
        chunk: Callable[[Sequence[int]], Chunk],
        label: str,
    ) -> list[str]:
        """The responses to all prompts, as JSON; `chunk` makes the call that computes some rows."""
        self.meter.asked(keys)
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        known = self._store.get(list(first))
        missing = [i for key, i in first.items() if key not in known]
        rows = cut(prompts, missing, len(first))
        if rows:
            chunks = [chunk(part) for part in rows]
            with ExitStack() as bars:
                task = bars.enter_context(self._progress.task(label, len(missing)))
                own: dict[str, Bar] = {}  # of each worker, for its rate
                began = time.perf_counter()
                for computed in self._executor.map(chunks):
                    part = rows[computed.index]
                    began, since = time.perf_counter(), began
                    kind = ANSWERS if isinstance(chunks[computed.index], GenerateChunk) else LOGPROBS
                    self.meter.took(kind, _images(prompts[i] for i in part), began - since)
                    values = _as_json(chunks[computed.index], computed.results)
                    fresh = [(keys[i], value) for i, value in zip(part, values, strict=True)]
                    self.meter.computed([key for key, _ in fresh])
                    self._store.put(fresh)
                    known.update(fresh)
                    task.advance(len(part))
                    if (worker := computed.worker) and worker not in own and len(own) < WORKER_BARS:
                        own[worker] = bars.enter_context(self._progress.task(f"  {worker}", len(missing)))
                    if worker in own:
                        own[worker].advance(len(part))
        return [known[key] for key in keys]

    def _key(self, kind: str, prompt: Prompt, rest: object) -> bytes:
        """`START` bytes of the content of the first image, then of sha256 over the canonical JSON of [kind, model,
        turns, rest], which is put together from parts in half the time.

        A chunk holds prompts that begin with the same images, so that its rows stand side by side in the file.
        """
        quoted, images = encode_basestring, self._images
        turns = [
            f'["{turn.role}",[%s]]'
            % ",".join(
                [
                    quoted(part) if isinstance(part, str) else f'["{images.get(part) or self._image(part)}"]'
                    for part in turn.content
                ]
            )
            for turn in prompt.turns
        ]
        end = quoted(rest) if isinstance(rest, str) else canonical_json(rest)
        whole = hashlib.sha256(f'["{kind}","{self._model}",[{",".join(turns)}],{end}]'.encode()).digest()
        for turn in prompt.turns:
            for part in turn.content:
                if isinstance(part, Image):
                    return bytes.fromhex(images[part][: 2 * START]) + whole[START:]
        return whole

    def _image(self, image: Image) -> str:
        """The content of an image: its bytes and its caption, wherever the file lies."""
        if image not in self._images:
            digest = hashlib.sha256() if image.path is None else file_digest(image.path)
            digest.update(b"\0" + (image.caption or "").encode())
            self._images[image] = digest.hexdigest()
        return self._images[image]


def _images(prompts: Iterable[Prompt]) -> int:
    return sum(isinstance(part, Image) for prompt in prompts for turn in prompt.turns for part in turn.content)


def _as_json(chunk: Chunk, results: Results) -> list[str]:
    """Raises DataError for a log-probability that is not finite."""
    if isinstance(chunk, GenerateChunk):
        return [json.dumps(text) for text in results]
    values = []
    for answer, found in zip(chunk.answers, results, strict=True):
        assert isinstance(found, AnswerLogprob)
        if not math.isfinite(found.sum) or found.tokens < 1:
            raise DataError(
                f"the model gave the log-probability {found.sum} for the answer {answer!r}.",
                "Check its dtype: float16 overflows on some models, bfloat16 does not.",
            )
        values.append(json.dumps([found.sum, found.tokens]))
    return values


def _parsed(values: Sequence[str], form: Callable[[Any], T]) -> list[T]:
    try:
        return [form(json.loads(value)) for value in values]
    except (ValueError, TypeError) as e:
        raise StorageError(
            "the response cache holds a value that is no response of a model.",
            "Move responses.sqlite of the work folder away and run again: what it holds is asked again.",
        ) from e
