"""The tables and views of the registry, each defined once.

Times are ISO 8601 in UTC with microseconds, so that they sort as text in any database.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    and_,
    case,
    func,
    select,
)  # fmt: skip

from leverplus_core.registry.liveness import StaleBefore

metadata = MetaData()


def _table(name: str, *columns: Any) -> Table:
    return Table(name, metadata, *columns)


def _key(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, primary_key=True, autoincrement=False)


def _value(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=False)


def _run() -> Column[str]:
    return Column("run_id", String(64), ForeignKey("runs.id"), primary_key=True)


schema_version = _table("schema_version", _value("version", Integer))

runs = _table(
    "runs",
    _key("id", String(64)), _value("name", String(190)), _value("fingerprint", String(64)),
    _value("status", String(16)), _value("dataset", Text), _value("model", Text), _value("seed", Integer),
    _value("recipe", JSON), _value("parts", JSON), _value("environment", JSON), _value("git", JSON),
    _value("note", Text), _value("created_at", String(32)), _value("started_at", String(32)),
    Column("finished_at", String(32)),
    Column("dataset_fingerprint", String(64)),  # NULL for published tables
    Column("sweep", String(190)),
    Column("arm", JSON(none_as_null=True)),  # the settings that its sweep varies
    _value("source", String(16)),  # 'run', 'published' (a table without predictions) or 'imported' (logs)
    Column("host", Text), Column("pid", Integer),  # the process that computes or computed it, if one did
    Column("alive_at", String(32)),  # when that process was heard of last
)  # fmt: skip

labels = _table(
    "labels",
    _run(), Column("name", String(190)), _value("note", Text), _value("tags", JSON),
)  # fmt: skip
"""What its user calls a run, and writes about it; a name here stays when the recipe is run again."""

stages = _table(
    "stages",
    _run(), _key("name", String(64)), _value("fingerprint", String(64)), _value("status", String(16)),
    _value("seconds", Float), _value("path", Text), _value("reused", Boolean),
    _value("position", Integer),  # in the order in which the run recorded its stages, from 0
    Column("metadata", JSON(none_as_null=True)),  # a summary of its result, and its cost
)  # fmt: skip

curves = _table(
    "curves",
    _run(), _key("stage", String(64)), _key("step", Integer), _key("metric", String(64)),
    Column("value", Float),  # NULL where the metric was not a number
)  # fmt: skip

validation_questions = _table(
    "validation_questions", _run(), _key("stage", String(64)), _key("question_id", String(190))
)
"""The questions that chose the epoch of each policy: no result on these says anything about it."""

predictions = _table(
    "predictions",
    _run(), _key("method", String(64)), _key("shots", Integer), _key("question_id", String(190)),
    _value("image_id", String(190)), _value("position", Integer), _value("demonstrations", JSON),
    _value("raw_text", Text), _value("prediction", Text), _value("accuracy", Float),
    Column("copied", Boolean),  # whether a demonstration that was shown has this answer
)  # fmt: skip

# Covers all that a comparison reads, in the order in which it reads it.
Index(
    "predictions_scores",
    *(predictions.c[name] for name in ("run_id", "method", "shots", "position", "accuracy", "question_id", "image_id")),
)

cells = _table(
    "cells",
    _run(), _key("method", String(64)), _key("shots", Integer), _key("n", Integer),
    _value("accuracy", Float), _value("ci_low", Float), _value("ci_high", Float),
    Column("sample", String(16)),  # cells of equal samples answered the same questions in the same order
    Column("accuracy_text", String(32)),  # what a published table prints, in percent
    Column("copied", Float),  # the share of its answers that a demonstration shown has
)  # fmt: skip

methods = _table(
    "methods",
    _run(), _key("method", String(64)),
    Column("prompts", Integer),  # distinct prompts that led to it; NULL where that is not known
)  # fmt: skip

evaluations = _table(
    "evaluations",
    Column("id", Integer, primary_key=True),  # in the order in which they were recorded
    _value("run_id", String(64)),  # of a run that may have been deleted since
    _value("name", String(190)), _value("fingerprint", String(64)), _value("dataset_fingerprint", String(64)),
    _value("split", String(16)), _value("sample", String(16)), _value("n", Integer), _value("methods", JSON),
    _value("asked_at", String(32)),
)  # fmt: skip
"""Every evaluation that was shown the answers to a set of questions. Rows are added and never changed or removed."""


def _content(name: str, *own: Column[Any]) -> Table:
    return _table(
        name,
        _key("dataset_fingerprint", String(64)), _key("id", String(190)), _value("text", Text),
        _value("image_id", String(190)), Column("image_path", Text), Column("caption", Text), *own,
    )  # fmt: skip


questions = _content("questions", _value("answers", JSON), Column("digest", String(64)))
"""`digest` is the hash of the document that a logged question was made from; NULL for the questions of a dataset."""
demonstrations = _content("demonstrations", _value("answer", Text))

_R, _C, _P, _Q, _M, _E = runs.c, cells.c, predictions.c, questions.c, methods.c, evaluations.c

_interrupted = and_(_R.status == "running", func.coalesce(_R.alive_at, "") < StaleBefore())
_status = case((_interrupted, "interrupted"), else_=_R.status).label("status")

leaderboard = (
    select(
        _R.id.label("run"), _R.name, _R.dataset, _R.model, _C.method, _C.shots, _C.n, _C.accuracy, _C.ci_low,
        _C.ci_high, _status, _R.note, case((_R.source == "run", _R.seed)).label("seed"), _R.sweep, _R.arm, _R.source,
        _C.accuracy_text, _C.sample, _C.copied, _M.prompts,
    )
    .join_from(cells, runs)
    .outerjoin(methods, and_(_M.run_id == _C.run_id, _M.method == _C.method))
)  # fmt: skip

predictions_with_questions = (
    select(
        _R.id.label("run"), _R.name, _P.method, _P.shots, _P.position, _P.question_id, _Q.text.label("question"),
        _P.image_id, _Q.image_path, _Q.caption, _Q.answers, _P.demonstrations, _P.raw_text, _P.prediction, _P.accuracy,
        _P.copied,
    )
    .join_from(predictions, runs)
    .outerjoin(questions, and_(_Q.dataset_fingerprint == _R.dataset_fingerprint, _Q.id == _P.question_id))
)  # fmt: skip

questions_asked = (
    select(
        _E.dataset_fingerprint, _E.split, func.count(_E.run_id.distinct()).label("runs"),
        func.count(_E.id).label("evaluations"), func.max(_E.n).label("largest_n"),
        func.min(_E.asked_at).label("first_asked_at"), func.max(_E.asked_at).label("last_asked_at"),
    )
    .group_by(_E.dataset_fingerprint, _E.split)
)  # fmt: skip

VIEWS: dict[str, Select[Any]] = {
    "leaderboard": leaderboard,
    "predictions_with_questions": predictions_with_questions,
    "questions_asked": questions_asked,
}
