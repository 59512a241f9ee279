"""Importing: a Lever-Plus file into a folder of our formats (`layout`). What is in memory is an entry at a time.

Imports of several kinds add up in one folder, to the same files in any order.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from leverplus_core.candidates.store import CANDIDATES
from leverplus_core.errors import DataError
from leverplus_core.interchange.beams import read_beam_entry
from leverplus_core.interchange.derived import Summary, derive
from leverplus_core.interchange.embeddings import read_tensor, write_rows
from leverplus_core.interchange.json_object import JsonObject
from leverplus_core.interchange.layout import (
    BEAM_ORIGINALS,
    BEAM_POOLS,
    EMBEDDINGS,
    META,
    ORIGINALS,
    POOLS,
    SUMMARY,
    TEXTS,
    PoolWriter,
    write_line,
)
from leverplus_core.interchange.manifest import MANIFEST, Kind, Manifest, building, hash_of, seal
from leverplus_core.interchange.not_kept import NotKept
from leverplus_core.interchange.rl_data import Entry, read_entry
from leverplus_core.interchange.rows import Rows
from leverplus_core.io import atomic_write, canonical_json, read_json, write_json
from leverplus_core.progress import Progress
from leverplus_core.records import Candidate

_FIELDS = [f.name for f in fields(Candidate)]


def import_rl_data(
    file: Path,
    folder: Path,
    rows: Rows | None = None,
    *,
    correct_threshold: float = 0.5,
    mixed_shots: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Import an rl-data file into `folder` and return the folder's summary.

    `rows` maps row numbers to ids (default: the number is the id). A candidate is correct from accuracy `correct_threshold`
    on. Raises DataError, and leaves `folder` as it was, for anything that the file gets wrong (`read_entry`), for two
    shot counts in one file unless `mixed_shots`, and where `folder` holds rl-data already unless `replace`.
    """
    source = JsonObject(file, progress)
    with _adding("rl-data", file, folder, rows, replace) as job:
        job.summary["rl-data"] = _write_entries(source, job, correct_threshold, mixed_shots)
        job.done(source.sha256, correct_threshold=correct_threshold, mixed_shots=mixed_shots)
    return job.summary


def import_beams(
    file: Path,
    folder: Path,
    rows: Rows | None = None,
    *,
    mixed_shots: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Import a beam file into `folder` and return the folder's summary.

    A sequence with a demonstration outside the pool that rl-data gives the question is not kept. Raises as
    `import_rl_data`.
    """
    source = JsonObject(file, progress)
    with _adding("beams", file, folder, rows, replace) as job:
        seen, shots, first_with = _Once(), Counter[int](), _OneLength(mixed_shots)
        with atomic_write(job.scratch / BEAM_ORIGINALS) as originals:
            for key, value in source:
                if key == META:
                    write_line(originals, {"key": key, "value": value})
                    continue
                entry = read_beam_entry(key, value, job.rows, NotKept())
                seen.add(entry.row)
                for sequence in entry.sequences:
                    first_with.check(len(sequence.demonstrations), key)
                    shots[len(sequence.demonstrations)] += 1
                write_line(originals, {"key": key, "id": entry.question_id, "value": value})
        job.summary["beams"] = {"file": file.name, "questions": len(seen.rows), "shots": _sorted(shots)}
        job.done(source.sha256, mixed_shots=mixed_shots)
    return job.summary


def import_embeddings(file: Path, folder: Path, rows: Rows | None = None, *, replace: bool = False) -> Summary:
    """Import a tensor of embeddings into `folder`, as the image features, and return the folder's summary.

    Raises DataError as `read_tensor`, and where a question or demonstration of the folder has no row.
    """
    with _adding("embeddings", file, folder, rows, replace) as job:
        embeddings, dtype = read_tensor(file)
        write_rows(job.scratch / EMBEDDINGS, embeddings)
        job.summary["embeddings"] = {
            "file": file.name,
            "rows": len(embeddings),
            "width": embeddings.shape[1],
            "dtype": dtype,
        }
        job.done(hash_of(file), dtype=dtype)
    return job.summary


@dataclass
class _Job:
    """A folder in the making: `scratch` holds what was there before; its manifest's `imports`, and its summary."""

    kind: Kind
    file: Path
    scratch: Path
    imports: dict[Kind, Any]
    summary: Summary
    rows: Rows

    def done(self, sha256: str, **options: object) -> None:
        identity = self.rows.identity()
        self.imports[self.kind] = {"file": self.file.name, "sha256": sha256, "options": options, "rows": identity}


@contextmanager
def _adding(kind: Kind, file: Path, folder: Path, rows: Rows | None, replace: bool) -> Iterator[_Job]:
    """What every import does around its own work: check the folder, derive what depends on several kinds, seal."""
    folder, rows = Path(os.path.realpath(folder)), rows or Rows()
    before = Manifest.read(folder) if (folder / MANIFEST).is_file() else Manifest()
    if kind in before.imports and not replace:
        raise DataError(
            f"{folder} holds {kind} already, from {before.imports[kind]['file']}.",
            "Say --replace, or name another folder with -o.",
        )
    for other, known in before.imports.items():
        if other != kind and known["rows"] != rows.identity():
            raise DataError(
                f"the {other} in {folder} are numbered by another dataset than this import's.",
                "Give the same --recipe, or none, to every import into a folder.",
            )
    with building(folder) as scratch:
        summary = read_json(scratch / SUMMARY) if (scratch / SUMMARY).is_file() else {}
        job = _Job(kind, file, scratch, dict(before.imports), summary, rows)
        try:
            yield job
            derive(scratch, rows, summary)
        except DataError as e:
            raise e if str(file) in e.what else DataError(f"{file}: {e.what}", e.hint) from e
        write_json(scratch / SUMMARY, summary)
        seal(scratch, job.imports)


def _write_entries(source: JsonObject, job: _Job, correct_threshold: float, mixed_shots: bool) -> Summary:
    """candidates.jsonl, originals.jsonl, pools.json and texts.jsonl, side by side."""
    counts, dropped, seen, first_with = _Counts(), NotKept(), _Once(), _OneLength(mixed_shots)
    (job.scratch / BEAM_POOLS).unlink(missing_ok=True)  # they were added to the pools that are replaced here
    with ExitStack() as stack:
        names = (CANDIDATES, ORIGINALS, TEXTS, POOLS)
        candidates, originals, texts, f = (stack.enter_context(atomic_write(job.scratch / n)) for n in names)
        pools = stack.enter_context(PoolWriter(f))
        for key, value in source:
            if key == META:
                write_line(originals, {"key": key, "value": value})
                continue
            entry = read_entry(key, value, job.rows, correct_threshold, dropped)
            seen.add(entry.row)
            for candidate in entry.candidates:
                first_with.check(len(candidate.demonstrations), key)
                candidates.write((canonical_json({name: getattr(candidate, name) for name in _FIELDS}) + "\n").encode())
            write_line(originals, {"key": key, "id": entry.question_id, "value": value})
            if entry.demonstrations:
                pools.add(entry.question_id, entry.demonstrations)
            if entry.text:
                write_line(texts, {"id": entry.question_id, "text": entry.text})
            counts.add(entry)
    if not counts.candidates:
        raise DataError("there is no candidate in it.", f"Not kept: {dropped}." if dropped.counts else "")
    return {
        "file": source.path.name,
        **counts.summary(),
        "correct_threshold": correct_threshold,
        "not_kept": dropped.summary(),
    }


class _Once:
    """Each question comes once. A JSON object may have a key twice, and "7" and "07" are one row."""

    def __init__(self) -> None:
        self.rows: set[int] = set()

    def add(self, row: int) -> None:
        if row in self.rows:
            raise DataError(f"question {row} comes twice.", "Make one entry of the two.")
        self.rows.add(row)


class _OneLength:
    """Sequences of one length, unless `mixed`."""

    def __init__(self, mixed: bool) -> None:
        self._mixed = mixed
        self._first: tuple[int, str] | None = None

    def check(self, shots: int, key: str) -> None:
        self._first = self._first or (shots, key)
        if shots != self._first[0] and not self._mixed:
            raise DataError(
                f"question {key} has a sequence of {shots} shots, question {self._first[1]} one of {self._first[0]}.",
                "One run has one number of shots; say --mixed-shots to take them all.",
            )


class _Counts:
    """What an rl-data file held."""

    def __init__(self) -> None:
        self.questions = self.candidates = self.positives = self.empty = self.disagree = 0
        self.no_probability = self.no_pool = 0
        self.shots, self.pool_sizes = Counter[int](), Counter[int]()
        self.sources, self.modes = Counter[str](), Counter[str]()

    def add(self, entry: Entry) -> None:
        group = entry.candidates
        self.questions += 1
        self.candidates += len(group)
        self.positives += sum(c.correct for c in group)
        self.empty += not group
        self.disagree += entry.disagree
        self.no_probability += sum(c.logprob is None for c in group)
        self.no_pool += entry.pool is None
        self.shots.update(len(c.demonstrations) for c in group)
        if entry.demonstrations:
            self.pool_sizes[len(entry.demonstrations)] += 1
        self.sources.update(c.source for c in group)
        self.modes.update(entry.modes)

    def summary(self) -> Summary:
        return {
            "questions": self.questions,
            "questions_without_candidates": self.empty,
            "candidates": self.candidates,
            "shots": _sorted(self.shots),
            "positive_rate": self.positives / self.candidates,
            "vqa_correct_says_otherwise": self.disagree,
            "without_probability": self.no_probability,
            "sources": dict(self.sources),
            "eval_modes": dict(self.modes),
            "pool_sizes": _sorted(self.pool_sizes),
            "pools_from_candidates": self.no_pool,
        }


def _sorted(counts: Counter[int]) -> dict[str, int]:
    return {str(n): count for n, count in sorted(counts.items())}
