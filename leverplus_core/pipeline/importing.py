"""Importing: what a `DataImporter` reads becomes a folder of leverplus's own formats, a question at a time.

Files of several kinds may be imported into one folder, in any order, with the same result: what each importer gave is
kept (`import_folder.given_path`), and pools, beams and features are derived from all of it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from leverplus_core.candidates.store import CANDIDATES
from leverplus_core.errors import DataError
from leverplus_core.io import atomic_write, canonical_json, fingerprint, iter_jsonl, read_json, write_json
from leverplus_core.pipeline.import_folder import (
    EMBEDDINGS,
    MANIFEST,
    POOLS,
    SEQUENCES,
    SUMMARY,
    Manifest,
    building,
    given_path,
    hash_of,
    seal,
)
from leverplus_core.pipeline.text_features import write_embedding_features, write_text_features
from leverplus_core.plugins.format_contracts import DataImporter, ImportReport
from leverplus_core.progress import Progress, Silent
from leverplus_core.records import Candidate, EmbeddingData, Question, QuestionData, ScoredSequence
from leverplus_core.selector.feature_set import FEATURES

Summary = dict[str, Any]
_FIELDS = [f.name for f in fields(Candidate)]


def dataset_identity(questions: Sequence[Question] | None) -> str | None:
    """Fingerprint of the question ids that number the rows of a file; None where rows are ids."""
    return None if questions is None else fingerprint([q.id for q in questions])


def import_data(
    importer: DataImporter,
    kind: str,
    source: Path,
    folder: Path,
    questions: Sequence[Question] | None = None,
    *,
    mixed_shots: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Import the file `source` into `folder` and return the folder's summary; `kind` is the name of the importer.

    Raises DataError, and leaves `folder` as it was, for everything that the importer refuses, a question that comes
    twice, sequences of several lengths unless `mixed_shots`, and where `folder` holds this kind already unless
    `replace`, holds the same content from another kind, or numbers its rows by another dataset.
    """
    folder, dataset = Path(os.path.realpath(folder)), dataset_identity(questions)
    before = Manifest.read(folder) if os.path.isfile(folder / MANIFEST) else Manifest()
    if kind in before.imports and not replace:
        raise DataError(
            f"{folder} holds {kind} already, from {before.imports[kind]['file']}.",
            "Give --replace, or name another folder with -o.",
        )
    for other, known in before.imports.items():
        if other != kind and known["dataset"] != dataset:
            raise DataError(
                f"the {other} in {folder} are numbered by another dataset than this import's.",
                "Give the same --recipe, or none, to every import into a folder.",
            )
    with building(folder) as scratch:
        summary: Summary = read_json(scratch / SUMMARY) if os.path.isfile(scratch / SUMMARY) else {"imports": {}}
        imports, report = summary["imports"], ImportReport()
        _remove(scratch, kind, imports.pop(kind, {}))
        try:
            data = importer.read(source, report, questions, progress or Silent())
            found = _write(scratch, kind, data, mixed_shots, report)
            for content in ("candidates", "pool_sizes", "rows"):
                givers = [other for other in imports if content in found and content in imports[other]]
                if givers:
                    raise DataError(f"{folder} holds such data, from {givers[0]}.", "Name another folder with -o.")
            settings = importer.model_dump(mode="json")
            remarks = {"notes": report.notes, "not_kept": _left_out(report)}
            imports[kind] = {"file": source.name, "settings": settings, **found, **remarks}
            _derive(scratch, questions, summary)
            made_from = {"file": source.name, "sha256": hash_of(source), "settings": settings}
        except DataError as e:
            raise e if str(source) in e.what else DataError(f"{source}: {e.what}", e.hint) from e
        write_json(scratch / SUMMARY, summary)
        seal(scratch, {**before.imports, kind: {**made_from, "dataset": dataset}})
    return summary


def _left_out(report: ImportReport) -> Summary:
    return {reason: {"count": n, "examples": examples} for reason, (n, examples) in report.left_out.items()}


def _remove(folder: Path, kind: str, earlier: Summary) -> None:
    """Delete what an earlier import of this kind gave."""
    names = {"candidates": CANDIDATES, "rows": EMBEDDINGS}
    for path in (given_path(folder, kind), *(folder / name for content, name in names.items() if content in earlier)):
        path.unlink(missing_ok=True)


def _write(
    folder: Path, kind: str, data: Iterable[QuestionData | EmbeddingData], mixed_shots: bool, report: ImportReport
) -> Summary:
    """Write what an importer gives; returns its summary."""
    counts, embeddings = _Counts(mixed_shots), {}
    with ExitStack() as stack:
        lines = candidates = None
        for one in data:
            if isinstance(one, EmbeddingData):
                with atomic_write(folder / EMBEDDINGS) as f:
                    np.savez(f, ids=np.array(one.ids, dtype=np.str_), rows=one.rows)
                embeddings = {"rows": len(one.rows), "width": one.rows.shape[1], "dtype": str(one.rows.dtype)}
                continue
            counts.add(one)
            lines = lines or stack.enter_context(atomic_write(given_path(folder, kind)))
            sequences = [(s.demonstrations, s.score) for s in one.sequences] or None
            kept = {"text": one.text, "pool": one.pool, "sequences": sequences}
            row = {"question_id": one.question_id, **{name: v for name, v in kept.items() if v is not None}}
            lines.write((canonical_json(row) + "\n").encode())
            for candidate in one.candidates:
                candidates = candidates or stack.enter_context(atomic_write(folder / CANDIDATES))
                values = {name: getattr(candidate, name) for name in _FIELDS}
                candidates.write((canonical_json(values) + "\n").encode())
    if not (counts.shots or embeddings):
        hint = f"Not kept: {report}." if report.left_out else ""
        raise DataError("there is no candidate, sequence or embedding in it.", hint)
    return (counts.summary() if counts.ids else {}) | embeddings


class _Counts:
    """Counts what a file holds, and holds it to the rules that all files share."""

    def __init__(self, mixed_shots: bool) -> None:
        self.mixed_shots = mixed_shots
        self.ids: set[str] = set()
        self.first: tuple[int, str] | None = None  # shots of the first sequence, and its question
        self.of: Counter[str] = Counter()
        self.shots: Counter[int] = Counter()
        self.pool_sizes: Counter[int] = Counter()
        self.sources: Counter[str] = Counter()

    def add(self, data: QuestionData) -> None:
        if data.question_id in self.ids:
            raise DataError(f"question {data.question_id} comes twice.", "Make one entry of the two.")
        self.ids.add(data.question_id)
        shown: list[Candidate | ScoredSequence] = [*data.candidates, *data.sequences]
        for shots in (len(one.demonstrations) for one in shown):
            self.shots[shots] += 1
            self.first = self.first or (shots, data.question_id)
            if shots != self.first[0] and not self.mixed_shots:
                there = f"question {self.first[1]} one of {self.first[0]}"
                hint = "One run has one number of shots; give --mixed-shots to take them all."
                raise DataError(f"question {data.question_id} has a sequence of {shots} shots, {there}.", hint)
        self.of["candidates"] += len(data.candidates)
        self.of["sequences"] += len(data.sequences)
        self.of["positives"] += sum(c.correct for c in data.candidates)
        self.of["without_probability"] += sum(c.logprob is None for c in data.candidates)
        self.of["questions_without_any"] += not shown
        self.sources.update(c.source for c in data.candidates)
        self.pool_sizes.update([len(data.pool)] if data.pool else ())

    def summary(self) -> Summary:
        found: Summary = {"questions": len(self.ids), "questions_without_any": self.of["questions_without_any"]}
        if count := self.of["candidates"]:
            rate, without = self.of["positives"] / count, self.of["without_probability"]
            found |= {"candidates": count, "positive_rate": rate, "without_probability": without}
            found["sources"] = dict(self.sources)
        if self.of["sequences"]:
            found["sequences"] = self.of["sequences"]
        if self.pool_sizes:
            found["pool_sizes"] = _sorted(self.pool_sizes)
        return found | {"shots": _sorted(self.shots)}


def _sorted(counts: Counter[int]) -> dict[str, int]:
    return {str(n): count for n, count in sorted(counts.items())}


# --- what is derived from all that a folder was given -----------------------------------------------------------------


def _derive(folder: Path, questions: Sequence[Question] | None, summary: Summary) -> None:
    """Write pools.json, the sequences and features.npz from what was imported so far; adds to `summary`.

    Raises DataError where no sequence can be kept, or embeddings lack a question or demonstration.
    """
    for name in (POOLS, SEQUENCES, FEATURES):
        (folder / name).unlink(missing_ok=True)
    for name in ("sequences", "features"):
        summary.pop(name, None)
    with_sequences = {q for q, row in given(folder) if "sequences" in row}
    pools = {q: set(row["pool"]) for q, row in given(folder) if row.get("pool") and q in with_sequences}
    own: dict[str, list[str]] = {}
    if with_sequences:
        summary["sequences"] = _write_sequences(folder, pools, own)
    ids: dict[str, None] = {}  # of every question with a pool, and every demonstration
    with atomic_write(folder / POOLS) as f:
        f.write(b'{"train": {')
        there = ((q, row["pool"]) for q, row in given(folder) if row.get("pool"))
        for question_id, pool in chain(there, own.items()):
            f.write(f"{',' if ids else ''}\n{canonical_json(question_id)}: {canonical_json(pool)}".encode())
            ids |= dict.fromkeys((question_id, *pool))
        f.write(b'\n},\n"validation": {}}\n')
    if not ids and not any("pool" in row for _, row in given(folder)):
        (folder / POOLS).unlink()  # nothing of pools was imported
    if os.path.isfile(folder / EMBEDDINGS):
        summary["features"] = _features_of_embeddings(folder, ids)
    elif os.path.isfile(folder / POOLS):
        summary["features"] = _features_of_texts(folder, ids, questions)


def given(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(question id, its text, pool and sequences as they were imported), by importer and in the order of the files."""
    for path in sorted(folder.glob(given_path(folder, "*").name)):
        for _, row in iter_jsonl(path):
            yield row["question_id"], row


def _write_sequences(folder: Path, pools: Mapping[str, set[str]], own: dict[str, list[str]]) -> Summary:
    """Write the sequences, best first. Sequences must stay in the question's pool; without one they make its `own`."""
    report, kept, without = ImportReport(), 0, 0
    with atomic_write(folder / SEQUENCES) as f:
        for question_id, row in given(folder):
            sequences, before, pool = row.get("sequences", ()), kept, pools.get(question_id)
            if sequences and pool is None:
                own[question_id] = list(dict.fromkeys(d for demonstrations, _ in sequences for d in demonstrations))
            for demonstrations, score in sorted(sequences, key=lambda pair: -pair[1]):
                if pool is not None and not pool.issuperset(demonstrations):
                    example = f"question {question_id}: {', '.join(demonstrations)}"
                    report.leave_out("a demonstration outside the question's pool", example)
                    continue
                sequence = {"question_id": question_id, "demonstrations": demonstrations, "score": score}
                f.write((canonical_json(sequence) + "\n").encode())
                kept += 1
            without += bool(sequences) and kept == before
    if not kept:
        raise DataError("no sequence can be kept.", f"Not kept: {report}.")
    counts = {"sequences": kept, "questions_without_sequences": without, "pools_from_sequences": len(own)}
    return {**counts, "not_kept": _left_out(report)}


def _features_of_embeddings(folder: Path, ids: Iterable[str]) -> Summary:
    with np.load(folder / EMBEDDINGS, allow_pickle=False) as arrays:
        known, rows = arrays["ids"].tolist(), arrays["rows"]
    there = set(known)
    absent = next((i for i in ids if i not in there), None)
    if absent is not None:
        raise DataError(
            f"the embeddings have {len(known):,} rows, none for {absent}, which a pool names.",
            "Import the embeddings of all train questions.",
        )
    write_embedding_features(folder / FEATURES, known, rows)
    zero = int((rows == 0).all(axis=1).sum())
    return {"from": "embeddings", "rows": len(known), "width": rows.shape[1], "rows_of_zeros": zero}


def _features_of_texts(folder: Path, ids: Iterable[str], questions: Sequence[Question] | None) -> Summary:
    """Features of every id in `ids` and, where the dataset is known, of all its train questions."""

    def texts() -> Iterator[tuple[str, str]]:
        if questions is not None:
            return ((q.id, q.text) for q in questions)
        return ((question_id, row["text"]) for question_id, row in given(folder) if "text" in row)

    with_text = list(dict.fromkeys(question_id for question_id, _ in texts()))
    without = sorted(set(ids).difference(with_text), key=lambda i: (len(i), i))
    write_text_features(folder / FEATURES, [*with_text, *without], (text for _, text in texts()))
    return {"from": "question texts", "rows": len(with_text) + len(without), "rows_without_text": len(without)}
