"""What an imported folder derives from several kinds of file: beams within the pools, the pools, the features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from leverplus_core.errors import DataError
from leverplus_core.interchange.beams import read_beam_entry
from leverplus_core.interchange.embeddings import read_rows
from leverplus_core.interchange.features import write_embedding_features, write_text_features
from leverplus_core.interchange.layout import (
    BEAM_ORIGINALS,
    BEAM_POOLS,
    BEAMS,
    EMBEDDINGS,
    FEATURES,
    POOLS,
    TEXTS,
    PoolWriter,
    iter_pools,
)
from leverplus_core.interchange.not_kept import NotKept
from leverplus_core.interchange.rows import Rows
from leverplus_core.io import atomic_write, canonical_json, iter_jsonl, read_json, write_json

OUTSIDE = "a demonstration outside the question's pool"
Summary = dict[str, Any]


def derive(folder: Path, rows: Rows, summary: Summary) -> None:
    """Write beams.jsonl, pools.json and features.npz anew from what was imported so far; adds to `summary`.

    Raises DataError where embeddings have too few rows.
    """
    if (folder / BEAM_ORIGINALS).is_file():
        _beams_within_pools(folder, rows, summary["beams"])
    if (folder / EMBEDDINGS).is_file():
        summary["features"] = _features_of_embeddings(folder, rows)
    else:
        summary["features"] = _features_of_texts(folder, rows)


def _beams_within_pools(folder: Path, rows: Rows, summary: Summary) -> None:
    """Sequences of a question with a pool keep to it; to one without they are the pool."""
    asked = {row["id"] for _, row in iter_jsonl(folder / BEAM_ORIGINALS) if "id" in row}
    added = set(read_json(folder / BEAM_POOLS)) if (folder / BEAM_POOLS).is_file() else set()
    base = folder / POOLS
    there = iter_pools(base) if base.is_file() else iter(())
    pools = {q: set(pool) for q, pool in there if q in asked and q not in added}
    own: dict[str, list[str]] = {}
    dropped, kept, empty = NotKept(), 0, 0
    with atomic_write(folder / BEAMS) as f:
        for _, row in iter_jsonl(folder / BEAM_ORIGINALS):
            if "id" not in row:
                continue
            entry = read_beam_entry(row["key"], row["value"], rows, dropped)
            pool = pools.get(entry.question_id)
            written = 0
            for sequence in sorted(entry.sequences, key=lambda s: -s.score):
                if pool is not None and not pool.issuperset(sequence.demonstrations):
                    dropped.add(OUTSIDE, f"question {row['key']}: {', '.join(sequence.demonstrations)}")
                    continue
                f.write((canonical_json(asdict(sequence)) + "\n").encode())
                written += 1
            if pool is None and entry.sequences:
                shown = dict.fromkeys(d for s in entry.sequences for d in s.demonstrations)
                own[entry.question_id] = list(shown)
            kept, empty = kept + written, empty + (not written)
    if not kept:
        raise DataError("no sequence of the beams can be kept.", f"Not kept: {dropped}.")
    with ExitStack() as stack:
        writer = stack.enter_context(PoolWriter(stack.enter_context(atomic_write(folder / POOLS))))
        for question_id, of_question in iter_pools(base) if base.is_file() else ():
            if question_id not in added:
                writer.add(question_id, of_question)
        for question_id, of_question in own.items():
            writer.add(question_id, of_question)
    write_json(folder / BEAM_POOLS, own)
    summary |= {
        "sequences": kept,
        "questions_without_sequences": empty,
        "pools_from_sequences": len(own),
        "not_kept": dropped.summary(),
    }


def _features_of_embeddings(folder: Path, rows: Rows) -> Summary:
    embeddings = read_rows(folder / EMBEDDINGS)
    count = len(embeddings)
    if rows.count is not None and rows.count != count:
        raise DataError(
            f"the embeddings have {count:,} rows, the recipe's dataset {rows.count:,} train questions.",
            "Each question needs its row: were they made from this dataset?",
        )
    ids = [rows.id_of(row) for row in range(count)]
    known = set(ids)
    for question_id, pool in iter_pools(folder / POOLS) if (folder / POOLS).is_file() else ():
        absent = next((i for i in (question_id, *pool) if i not in known), None)
        if absent is not None:
            raise DataError(
                f"the embeddings have {count:,} rows, none for {absent} (question {question_id} or its pool).",
                "Import the embeddings of all train questions.",
            )
    write_embedding_features(folder / FEATURES, ids, embeddings)
    zero = int((embeddings == 0).all(axis=1).sum())
    return {"from": "embeddings", "rows": count, "width": embeddings.shape[1], "rows_of_zeros": zero}


def _features_of_texts(folder: Path, rows: Rows) -> Summary:
    """Over every id that a pool names; where the dataset is known, from its texts."""
    ids: dict[str, None] = {}
    for question_id, pool in iter_pools(folder / POOLS):
        ids[question_id] = None
        ids.update(dict.fromkeys(pool))
    texts = _texts(folder, rows)
    with_text = [i for i, _ in texts()]
    for i in with_text:
        ids.pop(i, None)
    without = sorted(ids, key=lambda i: (len(i), i))
    write_text_features(folder / FEATURES, [*with_text, *without], (text for _, text in texts()))
    return {"from": "question texts", "rows": len(with_text) + len(without), "rows_without_text": len(without)}


def _texts(folder: Path, rows: Rows) -> Callable[[], Iterator[tuple[str, str]]]:
    questions = rows.questions
    if questions is not None:
        return lambda: ((q.id, q.text) for q in questions)
    if not (folder / TEXTS).is_file():
        return lambda: iter(())
    return lambda: ((row["id"], row["text"]) for _, row in iter_jsonl(folder / TEXTS))
