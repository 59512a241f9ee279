"""The version of a registry, and the steps that bring an older one up to date."""

from __future__ import annotations

from sqlalchemy import Connection, inspect

from leverplus_core.errors import RegistryError
from leverplus_core.registry import tables
from leverplus_core.registry.database import ELSEWHERE, alone, shown

STEPS: tuple[tuple[str, ...], ...] = (
    ("ALTER TABLE runs ADD COLUMN planned JSON", "ALTER TABLE stages ADD COLUMN progress JSON"),
    ("ALTER TABLE questions ADD COLUMN digest VARCHAR(64)",),
)
"""SQL statements of each step; step i brings version i + 1 to i + 2. A new registry is made at the last version
directly, by `tables`: a step changes both. Once released, a step never changes. The SQL is what SQLite and PostgreSQL
have in common."""

CURRENT = 1 + len(STEPS)


def version(connection: Connection) -> int:
    """The registry's version; 0 for a database that holds none. Raises RegistryError where it is beyond CURRENT."""
    there = inspect(connection)
    if not there.has_table("schema_version"):
        return 0
    if not there.has_table("labels"):
        raise RegistryError(
            f"registry {shown(connection.engine.url)} was made before the first release of leverplus.",
            "Move it away and run again: finished stages are reused, and fill a new one.",
        )
    found = int(connection.exec_driver_sql("SELECT max(version) FROM schema_version").scalar() or 0)
    if found > CURRENT:
        raise RegistryError(
            f"registry {shown(connection.engine.url)} has version {found}; this leverplus knows up to {CURRENT}.",
            f"Update leverplus. {ELSEWHERE}",
        )
    return found


def migrate(connection: Connection) -> None:
    """Make the registry, or take the steps that are missing, in the transaction that `connection` is in."""
    alone(connection)  # the second of two programs finds the first one's work done
    found = version(connection)
    if found == 0:
        # Refuses a database in which another program has tables of these names.
        tables.metadata.create_all(connection, checkfirst=False)
        for name, query in tables.VIEWS.items():
            text = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
            connection.exec_driver_sql(f"CREATE VIEW {name} AS {text}")
    else:
        for statement in (s for step in STEPS[found - 1 :] for s in step):
            connection.exec_driver_sql(statement)
    if found < CURRENT:
        connection.exec_driver_sql("DELETE FROM schema_version")
        connection.exec_driver_sql(f"INSERT INTO schema_version (version) VALUES ({CURRENT})")
