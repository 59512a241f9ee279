"""Queries of one who looks through a run's answers: which questions fit, and what was answered to a few of them.

A position, from 0, is the place of a question among the answers of one (method, shots) of the run. The methods of a run
answer the same questions in the same order; those that were imported from other programs need not, so that answers
belong together by the id of their question.
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
    c: Connection,
    run_id: str,
    dataset: str,
    of: Answered,
    conditions: Sequence[Condition],
    words: Sequence[str],
    n: int,
) -> list[int]:
    """Of the first `n` questions that one (method, shots) answered, the positions of those on which all conditions hold
    and whose text, id or caption holds all words, ascending. Lower and upper case are one; SQLite knows this of ASCII
    only."""
    p, q = tables.predictions.alias(), tables.questions
    wanted = select(p.c.position).where(p.c.run_id == run_id, p.c.method == of[0], p.c.shots == of[1], p.c.position < n)
    for method, shots, least, below in conditions:
        answer = p
        if (method, shots) != of:
            answer = tables.predictions.alias()
            key = (answer.c.run_id == run_id, answer.c.method == method, answer.c.shots == shots)
            wanted = wanted.join(answer, and_(*key, answer.c.question_id == p.c.question_id))
        wanted = wanted.where(answer.c.accuracy >= least) if least is not None else wanted
        wanted = wanted.where(answer.c.accuracy < below) if below is not None else wanted
    if words:
        wanted = wanted.outerjoin(q, and_(q.c.dataset_fingerprint == dataset, q.c.id == p.c.question_id))
        for word in words:
            where = func.coalesce(q.c.text, "") + "\n" + p.c.question_id + "\n" + func.coalesce(q.c.caption, "")
            wanted = wanted.where(where.icontains(word, autoescape=True))
    # The driver's own rows: SQLAlchemy's take twice as long.
    return [row[0] for row in c.execute(wanted.order_by(p.c.position)).cursor.fetchall()]


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
    c: Connection, run_id: str, columns: Sequence[Answered], question_ids: Iterable[str]
) -> dict[tuple[str, int, str], float]:
    """(method, shots, question id) -> accuracy, of some methods on some questions."""
    p, ids = tables.predictions.c, list(question_ids)
    found: dict[tuple[str, int, str], float] = {}
    for method, shots in columns:
        mine = (p.run_id == run_id, p.method == method, p.shots == shots)
        rows = c.execute(select(p.question_id, p.accuracy).where(*mine, p.question_id.in_(ids)))
        found |= {(method, shots, question_id): accuracy for question_id, accuracy in rows}
    return found
