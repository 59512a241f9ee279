"""Importing: a Lever-Plus file into a folder of our formats. What is in memory is an entry at a time.

    candidates.jsonl  pools.json  features.npz  beams.jsonl           what training reads
    originals.jsonl  beam-originals.jsonl  query_embeddings.npy       what the source holds beyond that, for `export`
    texts.jsonl  beam-pools.json                                      what the derived files are made again from
    summary.json                                                      what was kept, what was not, and why

Imports of several kinds add up in one folder, to the same files in any order.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import ijson

from leverplus_core.errors import DataError
from leverplus_core.files import canonical, iter_jsonl, read_json, replacing, write_json
from leverplus_core.groups import CANDIDATES
from leverplus_core.interchange.features import write_text_features
from leverplus_core.interchange.json_object import JsonObject
from leverplus_core.interchange.manifest import MANIFEST, Kind, Manifest, building, seal
from leverplus_core.interchange.rl_data import Entry, read_entry
from leverplus_core.interchange.rows import Rows
from leverplus_core.interchange.tally import Tally
from leverplus_core.progress import Progress
from leverplus_core.records import Candidate

POOLS, FEATURES, ORIGINALS, TEXTS, SUMMARY = (
    "pools.json",
    "features.npz",
    "originals.jsonl",
    "texts.jsonl",
    "summary.json",
)
META = "_meta"
Summary = dict[str, Any]
_FIELDS = [f.name for f in fields(Candidate)]


@dataclass
class Import:
    """A folder in the making: `scratch` with what was there before, its manifest's `imports`, and its summary."""

    scratch: Path
    imports: dict[Kind, Any]
    summary: Summary
    rows: Rows


def import_rl_data(
    file: Path,
    folder: Path,
    rows: Rows | None = None,
    *,
    correct_at: float = 0.5,
    mixed_shots: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Import an rl-data file into `folder` and return the folder's summary.

    `rows` maps row numbers to ids (default: the number is the id). A candidate is correct from accuracy `correct_at`
    on. Raises DataError, and leaves `folder` as it was, for anything that the file gets wrong (`read_entry`), for two
    shot counts in one file unless `mixed_shots`, and where `folder` holds rl-data already unless `replace`.
    """
    with _adding("rl-data", folder, rows or Rows(), replace) as job:
        source = JsonObject(file, progress)
        with _naming(file):
            job.summary["rl-data"] = _write_entries(source, job, correct_at, mixed_shots)
        job.imports["rl-data"] = {
            "file": file.name,
            "sha256": source.sha256,
            "options": {"correct_at": correct_at, "mixed_shots": mixed_shots},
            "rows": job.rows.identity(),
        }
    return job.summary


@contextmanager
def _adding(kind: Kind, folder: Path, rows: Rows, replace: bool) -> Iterator[Import]:
    """What every import does around its own work: check the folder, derive what depends on several kinds, seal."""
    folder = Path(os.path.abspath(folder))
    before = Manifest.read(folder) if (folder / MANIFEST).is_file() else Manifest()
    if kind in before.imports and not replace:
        raise DataError(
            f"{folder} holds {kind} already, from {before.imports[kind]['file']}.",
            "Say --replace, or name another folder with -o.",
        )
    for other, known in before.imports.items():
        if other != kind and known["rows"] != rows.identity():
            raise DataError(
                f"{folder} numbers its {other} by {'row' if known['rows'] is None else 'the ids of a dataset'}, "
                f"which this import does not.",
                "Give the same --recipe to every import into a folder.",
            )
    with building(folder) as scratch:
        summary = read_json(scratch / SUMMARY) if (scratch / SUMMARY).is_file() else {}
        job = Import(scratch, dict(before.imports), summary, rows)
        yield job
        _derive_features(job)
        write_json(scratch / SUMMARY, job.summary)
        seal(scratch, job.imports)


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Errors about an entry name the file it is in."""
    try:
        yield
    except DataError as e:
        if str(file) in e.what:
            raise
        raise DataError(f"{file}: {e.what}", e.hint) from e


def _write_entries(source: JsonObject, job: Import, correct_at: float, mixed_shots: bool) -> Summary:
    """candidates.jsonl, originals.jsonl, pools.json and texts.jsonl, side by side."""
    dropped, shots, sources, modes, sizes = Tally(), Counter[int](), Counter[str](), Counter[str](), Counter[int]()
    counts: Counter[str] = Counter()
    first_with: dict[int, str] = {}
    seen: set[int] = set()
    with ExitStack() as stack:
        names = (CANDIDATES, ORIGINALS, TEXTS, POOLS)
        candidates, originals, texts, pools = (stack.enter_context(replacing(job.scratch / n)) for n in names)
        (job.scratch / "beam-pools.json").unlink(missing_ok=True)  # of the pools before
        pools.write(b'{"train": {')
        for key, value in source:
            if key == META:
                _line(originals, {"key": key, "value": value})
                continue
            entry = read_entry(key, value, job.rows, correct_at, dropped)
            if entry.row in seen:
                raise DataError(f"question {key} comes twice.", "Merge the two entries.")
            seen.add(entry.row)
            for candidate in entry.candidates:
                first = first_with.setdefault(len(candidate.demonstrations), key)
                if len(first_with) > 1 and not mixed_shots:
                    other = next(n for n in first_with if n != len(candidate.demonstrations))
                    raise DataError(
                        f"question {first} has candidates of {len(candidate.demonstrations)} shots, "
                        f"question {first_with[other]} of {other}.",
                        "One run has one number of shots; say --mixed-shots to take them all.",
                    )
            _line(originals, {"key": key, "id": entry.question_id, "value": value})
            for candidate in entry.candidates:
                candidates.write((canonical({name: getattr(candidate, name) for name in _FIELDS}) + "\n").encode())
            pools.write(f"{',' if counts['questions'] else ''}\n{_json(entry.question_id)}: ".encode())
            pools.write(_json(entry.demonstrations).encode())
            if entry.text:
                _line(texts, {"id": entry.question_id, "text": entry.text})
            _count(entry, counts, shots, sources, modes, sizes)
        pools.write(b'\n},\n"validation": {}}\n')
    if not counts["candidates"]:
        raise DataError("there is no candidate in it.", _why(dropped))
    return {
        "file": source.path.name,
        "questions": counts["questions"],
        "questions_without_candidates": counts["empty"],
        "candidates": counts["candidates"],
        "shots": {str(n): c for n, c in sorted(shots.items())},
        "share_of_positives": counts["correct"] / counts["candidates"],
        "correct_at": correct_at,
        "vqa_correct_says_otherwise": counts["disagree"],
        "without_probability": counts["no probability"],
        "sources": dict(sources),
        "eval_modes": dict(modes),
        "pool_sizes": {str(n): c for n, c in sorted(sizes.items())},
        "pools_from_candidates": counts["no pool"],
        "not_kept": dropped.summary(),
    }


def _count(entry: Entry, counts: Counter[str], shots: Counter[int], *more: Counter[Any]) -> None:
    sources, modes, sizes = more
    counts["questions"] += 1
    counts["empty"] += not entry.candidates
    counts["no pool"] += entry.pool is None
    counts["candidates"] += len(entry.candidates)
    counts["disagree"] += entry.disagree
    counts["correct"] += sum(c.correct for c in entry.candidates)
    counts["no probability"] += sum(c.logprob is None for c in entry.candidates)
    shots.update(len(c.demonstrations) for c in entry.candidates)
    sources.update(c.source for c in entry.candidates)
    modes.update(entry.modes)
    sizes[len(entry.demonstrations)] += 1


def _why(dropped: Tally) -> str:
    return "; ".join(f"{count:,} not kept: {reason}" for reason, count in dropped.counts.items()) or "Is it the file?"


def read_pools(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """(question id, pool) of the train questions, one at a time."""
    with (folder / POOLS).open("rb") as f:
        yield from ijson.kvitems(f, "train")


def _derive_features(job: Import) -> None:
    """features.npz from the texts, over every id that a pool names; where a dataset is known, from its texts."""
    if not (job.scratch / POOLS).is_file():
        return
    ids: dict[str, None] = {}
    for question_id, pool in read_pools(job.scratch):
        ids[question_id] = None
        ids.update(dict.fromkeys(pool))
    texts = _texts(job)
    with_text = [i for i, _ in texts()]
    known = set(with_text)
    without = sorted((i for i in ids if i not in known), key=lambda i: (len(i), i))
    write_text_features(job.scratch / FEATURES, [*with_text, *without], (text for _, text in texts()))
    job.summary["features"] = {"from": "text", "rows": len(known) + len(without), "rows_without_text": len(without)}


def _texts(job: Import) -> Any:
    if job.rows.questions is not None:
        questions = job.rows.questions
        return lambda: ((q.id, q.text) for q in questions)
    return lambda: ((row["id"], row["text"]) for _, row in iter_jsonl(job.scratch / TEXTS))


def _line(f: BinaryIO, value: object) -> None:
    """A line of JSON in the order of its source, which `canonical` would lose."""
    f.write((_json(value) + "\n").encode())


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
