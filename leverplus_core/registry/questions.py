"""What a run's ids stand for: its questions and the demonstrations that it may show, stored once per dataset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Table, and_, select

from leverplus_core.records import Demonstration, Question
from leverplus_core.registry import tables
from leverplus_core.registry.database import insert

IDS_PER_QUERY = 500
"""Databases limit how many values a query may name."""


def insert_questions(
    c: Connection,
    dataset: str,
    questions: Iterable[Question],
    demonstrations: Iterable[Demonstration],
    digests: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Add those that are missing. Two runs may do so at once: the second leaves the rows of the first.

    `digests` are the hashes of the documents of logged questions, by id."""
    rows = [{**_row(dataset, q), "answers": list(q.answers), "digest": digests.get(q.id)} for q in questions]
    _add(c, tables.questions, rows)
    _add(c, tables.demonstrations, [{**_row(dataset, d), "answer": d.answer} for d in demonstrations])


def _row(dataset: str, item: Question | Demonstration) -> dict[str, Any]:
    image = item.image
    return {
        "dataset_fingerprint": dataset, "id": item.id, "text": item.text,
        "image_id": image.id, "image_path": image.path, "caption": image.caption,
    }  # fmt: skip


def _add(c: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    known = set(
        c.execute(select(table.c.id).where(table.c.dataset_fingerprint == rows[0]["dataset_fingerprint"])).scalars()
    )
    # In one order, so that two runs that add the same rows wait for each other and never in a circle.
    unknown = sorted((row for row in rows if row["id"] not in known), key=lambda row: str(row["id"]))
    if not unknown:
        return
    # Between the query and the insert another run may add the same rows, where the database lets two write.
    c.execute(insert(c, table).on_conflict_do_nothing(), unknown)


def question_row(c: Connection, dataset: str, question_id: str) -> dict[str, Any] | None:
    """The row of one question; None where it was not recorded."""
    t = tables.questions
    wanted = select(t).where(t.c.dataset_fingerprint == dataset, t.c.id == question_id)
    row = c.execute(wanted).mappings().one_or_none()
    return dict(row) if row else None


def demonstration_rows(c: Connection, dataset: str, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """id -> row, for those that were recorded."""
    t, wanted = tables.demonstrations, sorted(set(ids))
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(wanted), IDS_PER_QUERY):
        part = wanted[start : start + IDS_PER_QUERY]
        rows = c.execute(select(t).where(t.c.dataset_fingerprint == dataset, t.c.id.in_(part))).mappings()
        found |= {row["id"]: dict(row) for row in rows}
    return found


def answer_rows(c: Connection, run_id: str, question_id: str) -> list[dict[str, Any]]:
    """Rows of `predictions`: the answer of each method at each number of shots to the question."""
    p, cells = tables.predictions, tables.cells.c
    # Joined with the run's cells, so that each answer is found by its whole key and not by scanning the run.
    keys = select(cells.method, cells.shots).where(cells.run_id == run_id).distinct().subquery()
    same = and_(p.c.method == keys.c.method, p.c.shots == keys.c.shots)
    wanted = select(p).join(keys, same).where(p.c.run_id == run_id, p.c.question_id == question_id)
    return [dict(row) for row in c.execute(wanted.order_by(p.c.method, p.c.shots)).mappings()]
