"""Opening the database behind a registry, and a one-line error for each way in which it can fail."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from leverplus_core.errors import LeverplusError, RegistryError, StorageError
from leverplus_core.processes import lock_holder

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

BUSY_TIMEOUT_S = 30.0
LOCK = 0x1E7E2B1
"""Of `alone`, on databases that let several programs write at once; any number that nobody else uses."""
MAKE_ONE = "Create one with `leverplus run`, or name it with --registry."
ELSEWHERE = "Name another registry with --registry."


def connect(url: str, must_exist: bool, read_only: bool = False) -> Engine:
    """An engine for `url`; with `read_only` the database itself refuses whatever would write.

    Raises RegistryError for a URL that names no database that can be reached from here."""
    try:
        parsed = make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        if sqlite and parsed.database:
            parsed = parsed.set(database=os.path.expanduser(parsed.database))
        parsed = _readable(parsed) if must_exist else parsed
        engine = create_engine(parsed, connect_args={"timeout": BUSY_TIMEOUT_S} if sqlite else {})
        if read_only:
            engine = _only_reading(engine)
    except (ArgumentError, NoSuchModuleError, ValueError) as e:
        raise RegistryError(f"'{url}' is not a registry.", "Give a database URL such as sqlite:///leverplus.db.") from e
    except ImportError as e:
        raise RegistryError(f"registry {shown(parsed)}: {e}.", "Install the driver of that database.") from e
    if sqlite:
        file = sqlite_file(engine)
        if file is not None and must_exist and not os.path.exists(file):
            raise RegistryError(f"no registry at {file}.", MAKE_ONE)
        if file is not None and not must_exist:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                raise RegistryError(f"registry {file} cannot be created: {e.strerror}.", ELSEWHERE) from e
        event.listen(engine, "connect", _sqlite_settings)
        event.listen(engine, "begin", _sqlite_begin)
    return engine


def _readable(url: URL) -> URL:
    """`url`, or for a SQLite file in a folder that cannot be written, one that needs no files beside it to be read."""
    file = Path(url.database or "")
    if url.get_backend_name() != "sqlite" or not os.path.isfile(file) or os.access(file.parent, os.W_OK):
        return url
    if os.path.exists(file.with_name(f"{file.name}-wal")):
        return url  # A run may be writing: SQLite itself has to coordinate with it.
    return url.set(database=f"file:{quote(str(file.absolute()))}", query={"immutable": "1", "uri": "true"})


def _only_reading(engine: Engine) -> Engine:
    if engine.dialect.name != "sqlite":
        return engine.execution_options(postgresql_readonly=True)
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only = ON"))
    if (file := sqlite_file(engine)) is None:
        return engine
    uri = f"file:{quote(str(file.absolute()))}?mode=ro"

    # The engine keeps its URL, for messages.
    def opened(*_: Any) -> sqlite3.Connection:
        return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, check_same_thread=False)

    event.listen(engine, "do_connect", opened)
    return engine


def sqlite_file(engine: Engine) -> Path | None:
    """The file of a SQLite database; None for another database or one in memory."""
    name = engine.url.database
    if engine.dialect.name != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(name)


def sqlite_file_of(url: str) -> Path | None:
    """As `sqlite_file`, of a URL that nothing has been opened for; None where it is no URL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return None
    name = parsed.database
    if parsed.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return None
    return Path(os.path.expanduser(name))


@contextmanager
def failures(engine: Engine) -> Iterator[None]:
    """Turn a database's failures into one line: locked, damaged, not writable, full, not reachable."""
    try:
        yield
    except LeverplusError:
        raise
    except DBAPIError as e:
        file = sqlite_file(engine)
        holder = lock_holder(file) if file is not None else "another program"
        raise _failure(e, f"registry {shown(engine.url)}", holder) from e
    except (JSONDecodeError, RecursionError) as e:
        what = f"registry {shown(engine.url)} is damaged: a column that holds JSON holds something else."
        raise RegistryError(what, "Restore it from a copy. " + ELSEWHERE) from e
    except UnicodeEncodeError as e:
        what = f"half of a surrogate pair is no text: '{e.object}' cannot be in registry {shown(engine.url)}."
        raise RegistryError(what, "Write the text as UTF-8.") from e


def _failure(error: DBAPIError, where: str, holder: str) -> LeverplusError:
    detail = str(error.orig)
    code = getattr(error.orig, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None  # The low byte of SQLite's extended codes.
    if primary == sqlite3.SQLITE_FULL:
        return StorageError(f"no room left to write {where}.", "Free some space and repeat the command.")
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RegistryError(f"{where} is locked by {holder}.", "Wait for it to finish and repeat the command.")
    if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return RegistryError(f"{where} is damaged or no registry: {detail}.", "Restore it from a copy. " + ELSEWHERE)
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        return RegistryError(f"{where} cannot be opened or written: {detail}.", ELSEWHERE)
    if isinstance(error, IntegrityError):
        return RegistryError(f"{where} refuses a row: {detail}.", "Begin the run before writing to it.")
    return RegistryError(f"{where}: {detail}.")


def _sqlite_settings(connection: sqlite3.Connection, _: Any) -> None:
    # Transactions are begun below: the driver itself would leave CREATE TABLE outside them.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _sqlite_begin(connection: Connection) -> None:
    # A writer takes its lock at once: two that first read and then write would each refuse the other.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def insert(c: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say what happens to a row that is there: both databases spell it alike."""
    from sqlalchemy.dialects import postgresql, sqlite

    return postgresql.insert(table) if c.dialect.name == "postgresql" else sqlite.insert(table)


def alone(c: Connection) -> None:
    """Keep others that ask for the same away to the end of the transaction. On SQLite a writer is alone anyway."""
    if c.dialect.name == "postgresql":
        c.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")


def shown(url: URL) -> str:
    """The URL for a message, without its password."""
    return url.render_as_string(hide_password=True)
