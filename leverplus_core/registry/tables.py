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


def _key(name: str, kind: Any, doc: str) -> Column[Any]:
    return Column(name, kind, primary_key=True, autoincrement=False, doc=doc)


def _value(name: str, kind: Any, doc: str) -> Column[Any]:
    return Column(name, kind, nullable=False, doc=doc)


def _optional(name: str, kind: Any, doc: str) -> Column[Any]:
    return Column(name, kind, doc=doc)


def _run() -> Column[str]:
    return Column("run_id", String(64), ForeignKey("runs.id"), primary_key=True, doc="the run")


schema_version = _table(
    "schema_version", _value("version", Integer, "of the registry; the program migrates an older one")
)

runs = _table(
    "runs",
    _key("id", String(64), "the start of the recipe's fingerprint; of a published table made from its content"),
    _value("name", String(190), "the recipe's, or what `--name` says"),
    _value("fingerprint", String(64), "of the recipe: everything that decides a result"),
    _value("status", String(16), "running, done, partial, stopped, failed or interrupted"),
    _value("dataset", Text, "as the recipe names it"),
    _value("model", Text, "as the recipe names it"),
    _value("seed", Integer, "the recipe's"),
    _value("recipe", JSON, "all settings, defaults included"),
    _value("parts", JSON, "of each part that was used: kind, name, distribution, version, hash of the code"),
    _value("environment", JSON, "Python, packages, machine"),
    _value("git", JSON, "commit of the code, and whether it had been changed"),
    _value("note", Text, "what a reader must know about the protocol; empty for the standard protocol"),
    _value("created_at", String(32), "when it was first started"),
    _value("started_at", String(32), "when it was started last"),
    _optional("finished_at", String(32), "when it ended; NULL while it runs"),
    _optional("dataset_fingerprint", String(64), "the dataset by content; NULL for published tables"),
    _optional("sweep", String(190), "the sweep that it belongs to"),
    _optional("arm", JSON(none_as_null=True), "the settings by which it differs in its sweep"),
    _value("source", String(16), "run, published (a table without predictions) or imported (logs of other harnesses)"),
    _optional("host", Text, "the machine that computes or computed it; NULL for published tables"),
    _optional("pid", Integer, "the process there"),
    _optional("alive_at", String(32), "when that process was heard of last"),
    _optional("planned", JSON(none_as_null=True), "the names of the stages that it takes, in order"),
)

labels = _table(
    "labels",
    _run(),
    _optional("name", String(190), "what the user calls it"),
    _value("note", Text, "what the user writes about it"),
    _value("tags", JSON, "a list of words"),
)
"""What its user calls a run, and writes about it; a name here stays when the recipe is run again."""

stages = _table(
    "stages",
    _run(),
    _key("name", String(64), "of the stage"),
    _value("fingerprint", String(64), "of its settings, its code and what it reads"),
    _value("status", String(16), "as of a run; `not trained`: it had nothing to learn from"),
    _value("seconds", Float, "wall time of all attempts"),
    _value("path", Text, "its folder"),
    _value("reused", Boolean, "whether an earlier run had made it"),
    _value("position", Integer, "in the order in which the run recorded its stages, from 0"),
    _optional("metadata", JSON(none_as_null=True), "a summary of its result, and its cost"),
    _optional("progress", JSON(none_as_null=True), "while it runs: label, done and total of the work that it is at"),
)
NOT_TRAINED, UNTRAINED = "not trained", "untrained"
"""The status of a training that had nothing to learn from, and the key of its metadata that says why."""

curves = _table(
    "curves",
    _run(),
    _key("stage", String(64), "of the training"),
    _key("step", Integer, "the epoch; 0 is before training"),
    _key("metric", String(64), "a loss, a validation score, ..."),
    _optional("value", Float, "NULL where it was not a number"),
)

validation_questions = _table(
    "validation_questions",
    _run(),
    _key("stage", String(64), "of the training"),
    _key("question_id", String(190), "a question that chose the epoch of its policy"),
)
"""The questions that chose the epoch of each policy: no result on these says anything about it."""

predictions = _table(
    "predictions",
    _run(),
    _key("method", String(64), "a baseline, a trainer, one with an ablation, adaptive or oracle"),
    _key("shots", Integer, "number of demonstrations that were asked for"),
    _key("question_id", String(190), "the question"),
    _value("image_id", String(190), "its image"),
    _value("position", Integer, "place in the evaluation order, from 0: the sample of size n is position < n"),
    _value("demonstrations", JSON, "their ids in the order shown"),
    _value("raw_text", Text, "what the model generated"),
    _value("prediction", Text, "what remains after post-processing"),
    _value("accuracy", Float, "in [0, 1]"),
    _optional("copied", Boolean, "whether a demonstration that was shown has this answer"),
)

# Covers all that a comparison reads, in the order in which it reads it.
Index(
    "predictions_scores",
    *(predictions.c[name] for name in ("run_id", "method", "shots", "position", "accuracy", "question_id", "image_id")),
)

cells = _table(
    "cells",
    _run(),
    _key("method", String(64), "as in predictions"),
    _key("shots", Integer, "as in predictions"),
    _key("n", Integer, "number of questions"),
    _value("accuracy", Float, "the mean, in [0, 1]"),
    _value("ci_low", Float, "lower end of its 95% interval"),
    _value("ci_high", Float, "upper end of its 95% interval"),
    _optional("sample", String(16), "cells of equal samples answered the same questions in the same order"),
    _optional("accuracy_text", String(32), "what a published table prints, in percent"),
    _optional("copied", Float, "the share of its answers that a demonstration shown has"),
)

methods = _table(
    "methods",
    _run(),
    _key("method", String(64), "as in predictions"),
    _optional("prompts", Integer, "distinct prompts that led to it; NULL where that is not known"),
)

evaluations = _table(
    "evaluations",
    Column("id", Integer, primary_key=True, doc="in the order in which they were recorded"),
    _value("run_id", String(64), "of a run that may have been deleted since"),
    _value("name", String(190), "the run's"),
    _value("fingerprint", String(64), "of the evaluation"),
    _value("dataset_fingerprint", String(64), "the dataset by content"),
    _value("split", String(16), "validation, held_out or cross_fit"),
    _value("sample", String(16), "of its largest sample"),
    _value("n", Integer, "of its largest sample"),
    _value("methods", JSON, "their names"),
    _value("asked_at", String(32), "when it began"),
)
"""Every evaluation that was shown the answers to a set of questions. Rows are added and never changed or removed."""


def _content(name: str, *own: Column[Any]) -> Table:
    return _table(
        name,
        _key("dataset_fingerprint", String(64), "the dataset by content; the run's id where that is unknown"),
        _key("id", String(190), "as predictions name it"),
        _value("text", Text, "the question"),
        _value("image_id", String(190), "images of equal content have one"),
        _optional("image_path", Text, "its file"),
        _optional("caption", Text, "its caption"),
        *own,
    )


questions = _content(
    "questions",
    _value("answers", JSON, "of all annotators"),
    _optional("digest", String(64), "hash of the document that an imported log names; NULL for a dataset's questions"),
)
demonstrations = _content("demonstrations", _value("answer", Text, "the one that is shown"))

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
