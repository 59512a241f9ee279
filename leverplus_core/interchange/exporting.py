"""Exporting: an imported folder, or files of our own making, as files that the Lever-Plus research code reads.

What came from such a file goes out as it came in: the original row, wherever reading it again gives the candidate as
it stands. Only what changed, or was made here, is written from our fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leverplus_core.candidates.store import CANDIDATES, iter_groups
from leverplus_core.errors import DataError
from leverplus_core.interchange.beams import fresh_entry, read_beam_entry, select
from leverplus_core.interchange.embeddings import read_rows, write_tensor
from leverplus_core.interchange.layout import (
    BEAM_ORIGINALS,
    BEAMS,
    EMBEDDINGS,
    META,
    ORIGINALS,
    POOLS,
    iter_pools,
    to_json,
)
from leverplus_core.interchange.manifest import MANIFEST, Kind, Manifest
from leverplus_core.interchange.not_kept import NotKept
from leverplus_core.interchange.rl_data import fresh_row, read_entry
from leverplus_core.interchange.rows import Rows
from leverplus_core.io import atomic_write, iter_jsonl, iter_jsonl_offsets
from leverplus_core.records import Candidate, ScoredSequence


@dataclass
class Written:
    """What an export wrote: questions, and candidates or sequences; `original` of these as they once came in."""

    questions: int = 0
    rows: int = 0
    original: int = 0

    def add(self, rows: int, original: int) -> None:
        self.questions += 1
        self.rows += rows
        self.original += original


Entries = Iterator[tuple[str, Mapping[str, Any]]]


def export_rl_data(
    source: Path, out: Path, rows: Rows | None = None, pools: Path | None = None, originals: Path | None = None
) -> Written:
    """Write an imported folder, or a candidates file (or a folder with one), as rl-data.

    For a candidates file `pools` is a pools.json or a folder with one (default: the one beside it; without any,
    pointers are row numbers), and `originals` the imported folder that its candidates came from, whose rows then go
    out as they came in. Raises DataError for an id without a row number, and for a demonstration outside its pool.
    """
    rows, written = rows or Rows(), Written()
    if (source / MANIFEST).is_file():
        manifest = _imported(source, "rl-data", rows)
        correct_threshold = manifest.imports["rl-data"]["options"]["correct_threshold"]
        _write(out, _as_it_came(source, rows, correct_threshold, written))
        return written
    file = source / CANDIDATES if source.is_dir() else source
    beside = pools or file.parent
    pools_file = beside / POOLS if beside.is_dir() else beside
    if pools and not pools_file.is_file():
        raise DataError(f"there is no file {pools_file}.", "Name a pools.json with --pools.")
    known = dict(iter_pools(pools_file)) if pools_file.is_file() else None
    with closing(_Originals(originals, rows)) as old:
        _write(out, _from_candidates(file, rows, known, old, written))
    return written


def export_beams(source: Path, out: Path, rows: Rows | None = None) -> Written:
    """Write an imported folder, or a beams.jsonl (or a folder with one), as a beam file. Raises as `export_rl_data`."""
    rows, written = rows or Rows(), Written()
    imported = (source / MANIFEST).is_file()
    if imported:
        _imported(source, "beams", rows)
    file = source / BEAMS if source.is_dir() else source
    kept: dict[str, list[ScoredSequence]] = {}
    for number, row in iter_jsonl(file):
        try:
            sequence = ScoredSequence(row["question_id"], tuple(row["demonstrations"]), float(row["score"]))
        except (KeyError, TypeError, ValueError) as e:
            raise DataError(f"{file}:{number} is no sequence {{question_id, demonstrations, score}}.") from e
        kept.setdefault(sequence.question_id, []).append(sequence)
    _write(out, _beams_as_they_came(source, rows, kept, written) if imported else _fresh_beams(rows, kept, written))
    return written


def export_embeddings(source: Path, out: Path) -> Written:
    """Write the embeddings of an imported folder as the tensor that they came as, to the bit."""
    if not (source / MANIFEST).is_file():
        raise DataError(f"{source} is no imported folder.", "Embeddings are exported from where they were imported.")
    manifest = _imported(source, "embeddings", None)
    embeddings = read_rows(source / EMBEDDINGS)
    write_tensor(out, embeddings, manifest.imports["embeddings"]["options"]["dtype"])
    return Written(len(embeddings), len(embeddings), len(embeddings))


def _imported(folder: Path, kind: Kind, rows: Rows | None) -> Manifest:
    manifest = Manifest.read(folder)
    if kind not in manifest.imports:
        raise DataError(f"{folder} holds no {kind}, only {', '.join(manifest.imports)}.", f"Import {kind} into it.")
    if rows is not None and manifest.imports[kind]["rows"] != rows.identity():
        raise DataError(
            f"the {kind} in {folder} were imported {'without' if rows.count is not None else 'with'} a recipe.",
            "Give the same --recipe, or none, as `leverplus import` was given.",
        )
    return manifest


def _as_it_came(folder: Path, rows: Rows, correct_threshold: float, written: Written) -> Entries:
    for _, line in iter_jsonl(folder / ORIGINALS):
        key, value = line["key"], line["value"]
        if key != META:
            kept = read_entry(key, value, rows, correct_threshold, NotKept()).rows
            written.add(len(kept), len(kept))
            value = {**value, "pointer_candidates": [value["pointer_candidates"][i] for i in kept]}
        yield key, value


def _from_candidates(
    file: Path, rows: Rows, pools: Mapping[str, Sequence[str]] | None, old: _Originals, written: Written
) -> Entries:
    if old.meta is not None:
        yield META, old.meta
    for question_id, (group,) in iter_groups([file]):
        found = old.of(question_id)
        if found is None:
            found = str(rows.row_of(question_id)), _fresh_entry(question_id, rows, pools), {}
        key, entry, known = found
        numbers = entry.get("candidate_pool_ids")
        places = None if numbers is None else {n: i for i, n in enumerate(numbers)}
        out: list[Any] = []
        originals = 0
        for candidate in group:
            row = known.get(replace(candidate, correct=False))
            originals += row is not None
            out.append(fresh_row(candidate, rows, places) if row is None else row)
        written.add(len(out), originals)
        yield key, {**entry, "pointer_candidates": out}


def _fresh_entry(question_id: str, rows: Rows, pools: Mapping[str, Sequence[str]] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    question = rows.question(question_id)
    if question is not None:
        entry["query"] = {
            "query_id": rows.row_of(question_id),
            "question_id": _as_number(question.id),
            "image_id": _as_number(question.image.id),
            "question": question.text,
            "gt_answers_raw": list(question.answers),
        }
    if pools is not None:
        entry["candidate_pool_ids"] = [rows.row_of(d) for d in pools.get(question_id, ())]
    return entry


class _Originals:
    """The entries that an imported folder's rl-data came as, found by question id: on disk until asked for."""

    def __init__(self, folder: Path | None, rows: Rows) -> None:
        self.meta: Any = None
        self._rows, self._file = rows, None
        self._spans: dict[str, tuple[int, int]] = {}
        if folder is None:
            return
        manifest = _imported(folder, "rl-data", rows)
        self._correct_at = manifest.imports["rl-data"]["options"]["correct_threshold"]
        start = 0
        for _, end, line in iter_jsonl_offsets(folder / ORIGINALS):
            if "id" in line:
                self._spans[line["id"]] = (start, end)
            else:
                self.meta = line["value"]
            start = end
        self._file = (folder / ORIGINALS).open("rb")

    def of(self, question_id: str) -> tuple[str, dict[str, Any], dict[Candidate, Any]] | None:
        """The key, the entry, and its rows by the candidate each gives (`correct` aside: that is our threshold's)."""
        if self._file is None or question_id not in self._spans:
            return None
        start, end = self._spans[question_id]
        self._file.seek(start)
        line = json.loads(self._file.read(end - start))
        given = line["value"]["pointer_candidates"]
        entry = read_entry(line["key"], line["value"], self._rows, self._correct_at, NotKept())
        places = zip(entry.candidates, entry.rows, strict=True)
        return line["key"], line["value"], {replace(c, correct=False): given[i] for c, i in places}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _beams_as_they_came(
    folder: Path, rows: Rows, kept: Mapping[str, Iterable[ScoredSequence]], written: Written
) -> Entries:
    for _, line in iter_jsonl(folder / BEAM_ORIGINALS):
        key, value = line["key"], line["value"]
        if key != META:
            entry = read_beam_entry(key, value, rows, NotKept())
            stay = {sequence.demonstrations for sequence in kept.get(entry.question_id, ())}
            places = [i for s, i in zip(entry.sequences, entry.rows, strict=True) if s.demonstrations in stay]
            written.add(len(places), len(places))
            value = select(value, places)
        yield key, value


def _fresh_beams(rows: Rows, kept: Mapping[str, Sequence[ScoredSequence]], written: Written) -> Entries:
    for question_id, sequences in kept.items():
        row = rows.row_of(question_id)
        written.add(len(sequences), 0)
        yield str(row), fresh_entry(row, sequences, rows)


def _as_number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and (text == "0" or text[0] != "0") else text


def _write(out: Path, entries: Entries) -> None:
    """One JSON object, an entry a line, as they come."""
    with atomic_write(out) as f:
        before = "{\n"
        for key, value in entries:
            f.write(f"{before}{to_json(key)}:{to_json(value)}".encode())
            before = ",\n"
        if before == "{\n":
            raise DataError(f"there is nothing to write to {out}.", "The source holds no question.")
        f.write(b"\n}\n")
