"""The registry's tables. `migrations.py` makes them; a test holds the two together.

Times are ISO 8601 in UTC with microseconds, so that they sort as text in any database.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Boolean, Column, Float, ForeignKey, Integer, MetaData, String, Table, Text

metadata = MetaData()


def _run() -> Column[str]:
    return Column("run_id", String(64), ForeignKey("runs.id"), primary_key=True)


schema_version = Table("schema_version", metadata, Column("version", Integer, nullable=False))

runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(190), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("dataset", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("parts", JSON, nullable=False),
    Column("environment", JSON, nullable=False),
    Column("git", JSON, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("finished_at", String(32)),
    Column("dataset_fingerprint", String(64)),  # NULL for runs of the first version
    Column("sweep", String(190)),
    Column("arm", JSON(none_as_null=True)),  # the settings that its sweep varies
    Column("source", String(16), nullable=False, server_default="run"),  # 'run', or 'published': read from a table
)

stages = Table(
    "stages",
    metadata,
    _run(),
    Column("name", String(64), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("path", Text, nullable=False),
    Column("reused", Boolean, nullable=False),
    Column("facts", JSON(none_as_null=True)),  # what the stage says of its result, and what making it cost
)

curves = Table(
    "curves",
    metadata,
    _run(),
    Column("stage", String(64), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("metric", String(64), primary_key=True),
    Column("value", Float),  # NULL where the metric was not a number
)

validation_questions = Table(
    "validation_questions",
    metadata,
    _run(),
    Column("stage", String(64), primary_key=True),
    Column("question_id", String(190), primary_key=True),
)
"""The questions that chose the epoch of each policy: no result on these says anything about it."""

predictions = Table(
    "predictions",
    metadata,
    _run(),
    Column("method", String(64), primary_key=True),
    Column("shots", Integer, primary_key=True),
    Column("question_id", String(190), primary_key=True),
    Column("image_id", String(190), nullable=False),
    Column("position", Integer, nullable=False),
    Column("demonstrations", JSON, nullable=False),
    Column("raw_text", Text, nullable=False),
    Column("prediction", Text, nullable=False),
    Column("accuracy", Float, nullable=False),
)

cells = Table(
    "cells",
    metadata,
    _run(),
    Column("method", String(64), primary_key=True),
    Column("shots", Integer, primary_key=True),
    Column("n", Integer, primary_key=True),
    Column("accuracy", Float, nullable=False),
    Column("ci_low", Float, nullable=False),
    Column("ci_high", Float, nullable=False),
    Column("sample", String(16)),  # cells of equal samples answered the same questions in the same order
    Column("accuracy_text", String(32)),  # what a published table prints, in percent
)


def _asked(name: str, answers: Column[Any]) -> Table:
    return Table(
        name,
        metadata,
        Column("dataset_fingerprint", String(64), primary_key=True),
        Column("id", String(190), primary_key=True),
        Column("text", Text, nullable=False),
        Column("image_id", String(190), nullable=False),
        Column("image_path", Text),
        Column("caption", Text),
        answers,
    )


questions = _asked("questions", Column("answers", JSON, nullable=False))
demonstrations = _asked("demonstrations", Column("answer", Text, nullable=False))

# Views, kept apart from the tables: nothing writes to them and `create_all` must not make them tables.
views = MetaData()

leaderboard = Table(
    "leaderboard",
    views,
    Column("run", String(64)),
    Column("name", String(190)),
    Column("dataset", Text),
    Column("model", Text),
    Column("method", String(64)),
    Column("shots", Integer),
    Column("n", Integer),
    Column("accuracy", Float),
    Column("ci_low", Float),
    Column("ci_high", Float),
    Column("status", String(16)),
    Column("note", Text),
    Column("seed", Integer),  # NULL for published tables
    Column("sweep", String(190)),
    Column("arm", JSON),
    Column("source", String(16)),
    Column("accuracy_text", String(32)),
    Column("sample", String(16)),
)

predictions_with_questions = Table(
    "predictions_with_questions",
    views,
    Column("run", String(64)),
    Column("name", String(190)),
    Column("method", String(64)),
    Column("shots", Integer),
    Column("position", Integer),
    Column("question_id", String(190)),
    Column("question", Text),
    Column("image_id", String(190)),
    Column("image_path", Text),
    Column("caption", Text),
    Column("answers", JSON),
    Column("demonstrations", JSON),
    Column("raw_text", Text),
    Column("prediction", Text),
    Column("accuracy", Float),
)
