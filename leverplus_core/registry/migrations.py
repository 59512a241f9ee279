"""Numbered steps from an empty database to today's registry. A step, once released, never changes.

The SQL is what SQLite, PostgreSQL and MySQL have in common.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect

from leverplus_core.errors import RegistryError
from leverplus_core.registry.database import ELSEWHERE, shown

_FIRST = (
    """CREATE TABLE runs (
        id VARCHAR(64) NOT NULL PRIMARY KEY, name VARCHAR(190) NOT NULL, fingerprint VARCHAR(64) NOT NULL,
        status VARCHAR(16) NOT NULL, dataset TEXT NOT NULL, model TEXT NOT NULL, seed INTEGER NOT NULL,
        recipe JSON NOT NULL, parts JSON NOT NULL, environment JSON NOT NULL, git JSON NOT NULL, note TEXT NOT NULL,
        created_at VARCHAR(32) NOT NULL, started_at VARCHAR(32) NOT NULL, finished_at VARCHAR(32))""",
    """CREATE TABLE stages (
        run_id VARCHAR(64) NOT NULL, name VARCHAR(64) NOT NULL, fingerprint VARCHAR(64) NOT NULL,
        status VARCHAR(16) NOT NULL, seconds DOUBLE PRECISION NOT NULL, path TEXT NOT NULL, reused BOOLEAN NOT NULL,
        PRIMARY KEY (run_id, name), FOREIGN KEY (run_id) REFERENCES runs (id))""",
    """CREATE TABLE curves (
        run_id VARCHAR(64) NOT NULL, stage VARCHAR(64) NOT NULL, step INTEGER NOT NULL, metric VARCHAR(64) NOT NULL,
        value DOUBLE PRECISION,
        PRIMARY KEY (run_id, stage, step, metric), FOREIGN KEY (run_id) REFERENCES runs (id))""",
    """CREATE TABLE predictions (
        run_id VARCHAR(64) NOT NULL, method VARCHAR(64) NOT NULL, shots INTEGER NOT NULL,
        question_id VARCHAR(190) NOT NULL, image_id VARCHAR(190) NOT NULL, position INTEGER NOT NULL,
        demonstrations JSON NOT NULL, raw_text TEXT NOT NULL, prediction TEXT NOT NULL,
        accuracy DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (run_id, method, shots, question_id), FOREIGN KEY (run_id) REFERENCES runs (id))""",
    """CREATE TABLE cells (
        run_id VARCHAR(64) NOT NULL, method VARCHAR(64) NOT NULL, shots INTEGER NOT NULL, n INTEGER NOT NULL,
        accuracy DOUBLE PRECISION NOT NULL, ci_low DOUBLE PRECISION NOT NULL, ci_high DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (run_id, method, shots, n), FOREIGN KEY (run_id) REFERENCES runs (id))""",
    """CREATE VIEW leaderboard AS
        SELECT runs.id AS run, runs.name AS name, runs.dataset AS dataset, runs.model AS model,
            cells.method AS method, cells.shots AS shots, cells.n AS n,
            cells.accuracy AS accuracy, cells.ci_low AS ci_low, cells.ci_high AS ci_high,
            runs.status AS status, runs.note AS note
        FROM cells JOIN runs ON runs.id = cells.run_id""",
)

_SECOND = (
    "ALTER TABLE runs ADD COLUMN dataset_fingerprint VARCHAR(64)",
    "ALTER TABLE runs ADD COLUMN sweep VARCHAR(190)",
    "ALTER TABLE runs ADD COLUMN arm JSON",
    "ALTER TABLE runs ADD COLUMN source VARCHAR(16) DEFAULT 'run' NOT NULL",
    "ALTER TABLE stages ADD COLUMN facts JSON",
    "ALTER TABLE cells ADD COLUMN sample VARCHAR(16)",
    "ALTER TABLE cells ADD COLUMN accuracy_text VARCHAR(32)",
    """CREATE TABLE questions (
        dataset_fingerprint VARCHAR(64) NOT NULL, id VARCHAR(190) NOT NULL, text TEXT NOT NULL,
        image_id VARCHAR(190) NOT NULL, image_path TEXT, caption TEXT, answers JSON NOT NULL,
        PRIMARY KEY (dataset_fingerprint, id))""",
    """CREATE TABLE demonstrations (
        dataset_fingerprint VARCHAR(64) NOT NULL, id VARCHAR(190) NOT NULL, text TEXT NOT NULL,
        image_id VARCHAR(190) NOT NULL, image_path TEXT, caption TEXT, answer TEXT NOT NULL,
        PRIMARY KEY (dataset_fingerprint, id))""",
    """CREATE TABLE validation_questions (
        run_id VARCHAR(64) NOT NULL, stage VARCHAR(64) NOT NULL, question_id VARCHAR(190) NOT NULL,
        PRIMARY KEY (run_id, stage, question_id), FOREIGN KEY (run_id) REFERENCES runs (id))""",
    # Holds all that a comparison reads, in the order in which it reads it.
    """CREATE INDEX predictions_scores ON predictions
        (run_id, method, shots, position, accuracy, question_id, image_id)""",
    "DROP VIEW leaderboard",
    """CREATE VIEW leaderboard AS
        SELECT runs.id AS run, runs.name AS name, runs.dataset AS dataset, runs.model AS model,
            cells.method AS method, cells.shots AS shots, cells.n AS n,
            cells.accuracy AS accuracy, cells.ci_low AS ci_low, cells.ci_high AS ci_high,
            runs.status AS status, runs.note AS note,
            CASE WHEN runs.source = 'run' THEN runs.seed END AS seed, runs.sweep AS sweep, runs.arm AS arm,
            runs.source AS source, cells.accuracy_text AS accuracy_text, cells.sample AS sample
        FROM cells JOIN runs ON runs.id = cells.run_id""",
    """CREATE VIEW predictions_with_questions AS
        SELECT runs.id AS run, runs.name AS name, predictions.method AS method, predictions.shots AS shots,
            predictions.position AS position, predictions.question_id AS question_id, questions.text AS question,
            predictions.image_id AS image_id, questions.image_path AS image_path, questions.caption AS caption,
            questions.answers AS answers, predictions.demonstrations AS demonstrations,
            predictions.raw_text AS raw_text, predictions.prediction AS prediction, predictions.accuracy AS accuracy
        FROM predictions JOIN runs ON runs.id = predictions.run_id
        LEFT JOIN questions ON questions.dataset_fingerprint = runs.dataset_fingerprint
            AND questions.id = predictions.question_id""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND)
"""Statements of each step; step i brings version i to i + 1."""

CURRENT = len(MIGRATIONS)
LOCK = 0x1E7E2B1
"""Of whoever migrates, on databases that let several write at once; any number that nobody else uses."""


def version(connection: Connection) -> int:
    """The registry's version; 0 for a database that holds none. Raises RegistryError where it is beyond CURRENT."""
    if not inspect(connection).has_table("schema_version"):
        return 0
    found = int(connection.exec_driver_sql("SELECT max(version) FROM schema_version").scalar() or 0)
    if found > CURRENT:
        raise RegistryError(
            f"registry {shown(connection.engine.url)} has version {found}; this leverplus knows up to {CURRENT}.",
            f"Update leverplus. {ELSEWHERE}",
        )
    return found


def migrate(connection: Connection) -> None:
    """Take the steps that are missing, in the transaction that `connection` is in."""
    if connection.dialect.name == "postgresql":
        # Held to the end of the transaction: the second of two programs finds the first one's work done.
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    found = version(connection)
    if found == CURRENT:
        return
    if found == 0:
        connection.exec_driver_sql("CREATE TABLE schema_version (version INTEGER NOT NULL)")
    for statements in MIGRATIONS[found:]:
        for statement in statements:
            connection.exec_driver_sql(statement)
    connection.exec_driver_sql("DELETE FROM schema_version")
    connection.exec_driver_sql(f"INSERT INTO schema_version (version) VALUES ({CURRENT})")
