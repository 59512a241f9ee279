"""Queries of one who looks through a run's answers: which questions fit, and what was answered to a few of them.

All methods of a run answer the same questions in the same order, so that a position (from 0) names one question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, and_, func, select

from leverplus_core.registry import tables

Answered = tuple[str, int]
"""(method, shots)"""
Condition = tuple[str, int, float | None, float | None]
"""(method, shots, least accuracy, accuracy that it is below); None where there is no such end."""


def matching_positions(
    c: Connection, run_id: str, dataset: str, conditions: Sequence[Condition], words: Sequence[str], n: int
) -> list[int]:
    """The positions below `n` of the questions whose answers fit all conditions and whose text, id or caption holds all
    words, ascending. Lower and upper case are one; SQLite knows this of ASCII only."""
    q, first, *others = tables.questions, *conditions
    p = tables.predictions.alias()
    wanted = select(p.c.position).where(p.c.run_id == run_id, p.c.position < n, *_fits(p, first))
    for condition in others:
        more = tables.predictions.alias()
        # By position, which the index of scores has; the id is in that index as well.
        same = and_(more.c.run_id == run_id, more.c.position == p.c.position, more.c.question_id == p.c.question_id)
        wanted = wanted.join(more, and_(same, *_fits(more, condition)))
    if words:
        wanted = wanted.outerjoin(q, and_(q.c.dataset_fingerprint == dataset, q.c.id == p.c.question_id))
        for word in words:
            where = func.coalesce(q.c.text, "") + "\n" + p.c.question_id + "\n" + func.coalesce(q.c.caption, "")
            wanted = wanted.where(where.icontains(word, autoescape=True))
    # The driver's own rows: SQLAlchemy's take twice as long.
    return [row[0] for row in c.execute(wanted.order_by(p.c.position)).cursor.fetchall()]


def _fits(p: Any, condition: Condition) -> list[Any]:
    method, shots, least, below = condition
    found = [p.c.method == method, p.c.shots == shots]
    found += [p.c.accuracy >= least] if least is not None else []
    return found + ([p.c.accuracy < below] if below is not None else [])


def listed_rows(
    c: Connection, run_id: str, dataset: str, of: Answered, positions: Iterable[int]
) -> list[dict[str, Any]]:
    """position, question_id and image_id of the answers of one (method, shots) at some positions, ascending, and text,
    answers, image_path and caption of their questions, None where they were not recorded."""
    p, q = tables.predictions.c, tables.questions.c
    same = and_(q.dataset_fingerprint == dataset, q.id == p.question_id)
    wanted = (
        select(p.position, p.question_id, p.image_id, q.text, q.answers, q.image_path, q.caption)
        .join_from(tables.predictions, tables.questions, same, isouter=True)
        .where(p.run_id == run_id, p.method == of[0], p.shots == of[1], p.position.in_(list(positions)))
        .order_by(p.position)
    )
    return [dict(row) for row in c.execute(wanted).mappings()]


def accuracy_rows(
    c: Connection, run_id: str, columns: Sequence[Answered], positions: Iterable[int]
) -> dict[tuple[str, int, int], float]:
    """(method, shots, position) -> accuracy, of some methods at some positions."""
    p, at = tables.predictions.c, list(positions)
    found: dict[tuple[str, int, int], float] = {}
    for method, shots in columns:
        mine = (p.run_id == run_id, p.method == method, p.shots == shots)
        rows = c.execute(select(p.position, p.accuracy).where(*mine, p.position.in_(at)))
        found |= {(method, shots, position): accuracy for position, accuracy in rows}
    return found
