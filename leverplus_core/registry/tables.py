"""The registry's tables. `migrations.py` makes them; a test holds the two together.

Times are ISO 8601 in UTC with microseconds, so that they sort as text in any database.
"""

from __future__ import annotations

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
)

# A view, kept apart from the tables: nothing writes to it and `create_all` must not make it a table.
leaderboard = Table(
    "leaderboard",
    MetaData(),
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
)
