"""Which runs asked which evaluation questions, and when: rows that are added and never changed or removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, distinct, func, insert, select

from leverplus_core.registry import tables
from leverplus_core.registry.scores import sample_names


def insert_evaluation(
    c: Connection, run_id: str, fingerprint: str, split: str, asked: Sequence[tuple[str, str]],
    methods: Sequence[str], taken_over: bool, now: str,
) -> None:  # fmt: skip
    """Add a row in the transaction that `c` is in; `taken_over` answers only once per run and fingerprint."""
    t = tables.evaluations
    if taken_over and c.execute(select(t.c.id).where(t.c.run_id == run_id, t.c.fingerprint == fingerprint)).first():
        return
    run = c.execute(select(tables.runs).where(tables.runs.c.id == run_id)).one()
    sample = sample_names(run.dataset_fingerprint, asked, [len(asked)])[len(asked)]
    c.execute(
        insert(t).values(
            run_id=run_id, name=run.name, fingerprint=fingerprint, dataset_fingerprint=run.dataset_fingerprint,
            split=split, sample=sample, n=len(asked), methods=list(methods), asked_at=now,
        )
    )  # fmt: skip


def evaluation_rows(c: Connection, dataset_fingerprint: str | None, sample: str | None) -> list[dict[str, Any]]:
    """Rows of `evaluations` in the order of time, those of a dataset or a sample where one is named."""
    t = tables.evaluations
    wanted = select(t).order_by(t.c.asked_at, t.c.id)
    if dataset_fingerprint is not None:
        wanted = wanted.where(t.c.dataset_fingerprint == dataset_fingerprint)
    if sample is not None:
        wanted = wanted.where(t.c.sample == sample)
    return [dict(row) for row in c.execute(wanted).mappings()]


def count_runs(c: Connection, dataset_fingerprint: str, split: str) -> int:
    """How many runs asked questions of this split of the dataset, however many questions."""
    t = tables.evaluations.c
    wanted = select(func.count(distinct(t.run_id))).where(
        t.dataset_fingerprint == dataset_fingerprint, t.split == split
    )
    return int(c.execute(wanted).scalar() or 0)
