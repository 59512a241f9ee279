"""Exporting: an imported folder, or files that stages wrote, as a file that another project reads."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from leverplus_core.candidates.store import CANDIDATES, iter_groups
from leverplus_core.errors import DataError
from leverplus_core.io import atomic_write, iter_jsonl, read_json
from leverplus_core.pipeline.import_folder import EMBEDDINGS, MANIFEST, POOLS, SEQUENCES, Manifest
from leverplus_core.pipeline.importing import dataset_identity, given
from leverplus_core.plugins.format_contracts import Exporter
from leverplus_core.records import EmbeddingData, Question, QuestionData, ScoredSequence


def export_data(
    exporter: Exporter,
    source: Path,
    out: Path,
    questions: Sequence[Question] | None = None,
    pools: Path | None = None,
) -> dict[str, int]:
    """Write what the exporter takes of `source` to `out`; returns counts: questions, and candidates, sequences or rows.

    `source` is an imported folder, a folder of a stage, or its candidates or beams file. `pools` is a pools.json or a
    folder with one, by default the one beside the candidates. Raises DataError where `source` lacks the content, for an
    imported folder whose rows were numbered otherwise, and for everything that the exporter refuses.
    """
    if os.path.isfile(source / MANIFEST):
        imports = Manifest.read(source).imports
        if any(known["dataset"] != dataset_identity(questions) for known in imports.values()):
            raise DataError(
                f"the data in {source} were imported {'without' if questions is not None else 'with'} a recipe, "
                "or with another.",
                "Give the same --recipe, or none, as `leverplus import` was given.",
            )
    counts: Counter[str] = Counter()

    def counted(data: Iterator[QuestionData | EmbeddingData]) -> Iterator[QuestionData | EmbeddingData]:
        for one in data:
            if isinstance(one, EmbeddingData):
                counts["rows"] += len(one.rows)
            else:
                sizes = {"candidates": len(one.candidates), "sequences": len(one.sequences)}
                counts.update({"questions": 1, **{name: size for name, size in sizes.items() if size}})
            yield one

    content: dict[str, Iterator[QuestionData | EmbeddingData]] = {
        "candidates": _candidates(source, pools),
        "sequences": _sequences(source),
        "embeddings": _embeddings(source),
    }
    with atomic_write(out) as f:
        exporter.write(counted(content[exporter.content]), f, questions)
        if not counts:
            raise DataError(f"there is nothing to write to {out}.", "The source holds no question.")
    return dict(counts)


def _file(source: Path, name: str) -> Path:
    """The file of this name in the folder `source`, or `source`. Raises DataError where there is none."""
    file = source / name if os.path.isdir(source) else source
    if not os.path.isfile(file):
        raise DataError(f"there is no file {file}.", "Name a folder or file that holds what is to be exported.")
    return file


def _candidates(source: Path, pools: Path | None) -> Iterator[QuestionData]:
    file = _file(source, CANDIDATES)
    beside = pools or file.parent
    pools_file = beside / POOLS if os.path.isdir(beside) else beside
    if pools and not os.path.isfile(pools_file):
        raise DataError(f"there is no file {pools_file}.", "Name a pools.json with --pools.")
    known = read_json(pools_file)["train"] if os.path.isfile(pools_file) else None
    texts = {question_id: row["text"] for question_id, row in given(file.parent) if "text" in row}
    for question_id, (group,) in iter_groups([file]):
        pool = None if known is None else tuple(known.get(question_id, ()))
        yield QuestionData(question_id, texts.get(question_id), pool, tuple(group))


def _sequences(source: Path) -> Iterator[QuestionData]:
    file = _file(source, SEQUENCES)

    def sequences() -> Iterator[ScoredSequence]:
        for number, row in iter_jsonl(file):
            try:
                yield ScoredSequence(row["question_id"], tuple(row["demonstrations"]), float(row["score"]))
            except (KeyError, TypeError, ValueError) as e:
                raise DataError(f"{file}:{number} is not a sequence {{question_id, demonstrations, score}}.") from e

    for question_id, group in groupby(sequences(), key=lambda s: s.question_id):
        yield QuestionData(question_id, sequences=tuple(group))


def _embeddings(source: Path) -> Iterator[EmbeddingData]:
    if not os.path.isfile(source / MANIFEST):
        raise DataError(
            f"{source} is not an imported folder.", "Embeddings are exported from where they were imported."
        )
    with np.load(_file(source, EMBEDDINGS), allow_pickle=False) as arrays:
        yield EmbeddingData(arrays["ids"].tolist(), arrays["rows"])
