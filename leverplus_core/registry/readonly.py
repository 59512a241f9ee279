"""Queries that cannot change anything, whatever their text, and that end."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from leverplus_core.errors import LeverplusError, RegistryError
from leverplus_core.registry import tables
from leverplus_core.registry.database import BUSY_TIMEOUT_S, sqlite_file

Found = tuple[list[str], list[tuple[Any, ...]]]
"""Columns and rows."""

READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
TABLES = f"Views: {', '.join(tables.VIEWS)}. Tables: {', '.join(tables.metadata.tables)}."
STEPS = 10_000
"""Instructions of SQLite's machine between two looks at the clock: some tenths of a millisecond."""
MOST_SECONDS = 1_000_000
"""Eleven days, which PostgreSQL can count in milliseconds."""
VALUE_BYTES, RESULT_BYTES = 2**24, 2**28
"""The most that one value, and all values of a result, may take."""


def query(engine: Engine, text: str, seconds: float | None = None, limit: int | None = None) -> Found:
    """The columns and the first `limit` rows of one SELECT. Raises RegistryError after so many seconds.

    A SQLite file is opened for reading alone, and consults an authorizer about each action of a statement; elsewhere
    the transaction is read-only and the statement must be a SELECT.
    """
    clock = _Clock(seconds)
    if engine.dialect.name == "sqlite":
        with _sqlite(engine) as raw:
            return _of_sqlite(raw, text, clock, limit)
    if not re.match(r"\s*(SELECT|WITH)\b", text, re.IGNORECASE):
        raise _refusal(text)
    with engine.connect() as c:
        c.exec_driver_sql("SET TRANSACTION READ ONLY")
        if seconds is not None:
            c.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}")
        try:
            return _of_server(c, text, clock, limit)
        finally:
            c.rollback()


class _Clock:
    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not 0 < seconds <= MOST_SECONDS:
            raise RegistryError(
                f"a query cannot be given {seconds:g} s.", f"Give it more than 0, up to {MOST_SECONDS:,}."
            )
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def error(self) -> RegistryError:
        return RegistryError(
            f"the query was stopped: it had not ended after {self._seconds:g} s.",
            "Ask for less, or allow more with --seconds.",
        )


@contextmanager
def _sqlite(engine: Engine) -> Iterator[sqlite3.Connection]:
    """A connection that only reads: one of its own to the file; where there is no file, that of the engine."""
    file = sqlite_file(engine)
    if file is not None:
        uri = f"file:{quote(str(file.absolute()))}?mode=ro"
        try:
            raw = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)
        except sqlite3.Error as e:
            raise RegistryError(f"registry {file} cannot be opened: {e}.") from e
        with closing(raw):
            yield raw
        return
    with engine.connect() as c:
        own = c.connection.driver_connection
        assert isinstance(own, sqlite3.Connection)
        yield own


def _of_sqlite(raw: sqlite3.Connection, text: str, clock: _Clock, limit: int | None) -> Found:
    refused = False

    def authorize(action: int, _: object, name: str | None, *__: object) -> int:
        nonlocal refused
        if action in READING and not (action == sqlite3.SQLITE_FUNCTION and name == "load_extension"):
            return sqlite3.SQLITE_OK
        refused = True
        return sqlite3.SQLITE_DENY

    longest = raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES)
    raw.execute("PRAGMA query_only = ON")
    raw.set_authorizer(authorize)
    raw.set_progress_handler(lambda: clock.over, STEPS)
    try:
        cursor = raw.execute(text)
        if cursor.description is None:
            raise _refusal(text)
        return [column[0] for column in cursor.description], _taken(cursor, clock, limit)
    except sqlite3.OperationalError as e:
        if e.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            # What a signal raises in the handler only ends the query: nobody but Ctrl-C does so before the time.
            raise clock.error() if clock.over else KeyboardInterrupt from e
        raise (_refusal(text) if refused else _failed(e)) from e
    except (sqlite3.Error, sqlite3.Warning, ValueError) as e:  # ValueError: the driver on a text with a NUL in it.
        raise (_refusal(text) if refused else _failed(e)) from e
    finally:
        raw.set_progress_handler(None, 0)
        raw.set_authorizer(None)
        raw.execute("PRAGMA query_only = OFF")
        raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest)


def _of_server(c: Connection, text: str, clock: _Clock, limit: int | None) -> Found:
    # A cursor of the server: it takes one statement, and hands out rows as they are asked for.
    options = {"stream_results": True, "no_parameters": True}
    try:
        with closing(c.exec_driver_sql(text, execution_options=options)) as result:
            return list(result.keys()), _taken((tuple(row) for row in result), clock, limit)
    except ResourceClosedError as e:
        raise _refusal(text) from e
    except DBAPIError as e:
        if getattr(e.orig, "sqlstate", None) == "57014":  # canceled by the timeout
            raise clock.error() from e
        raise _failed(e.orig) from e


def _taken(rows: Iterable[tuple[Any, ...]], clock: _Clock, limit: int | None) -> list[tuple[Any, ...]]:
    """The first `limit` rows. Raises RegistryError where they do not fit in memory, or do not come in time."""
    found: list[tuple[Any, ...]] = []
    size = 0
    if limit == 0:
        return found
    for row in rows:
        found.append(row)
        size += sum(len(value) for value in row if isinstance(value, str | bytes))
        if size > RESULT_BYTES:
            raise RegistryError(f"the result is larger than {RESULT_BYTES >> 20} MB.", "Ask for fewer rows or columns.")
        if clock.over:
            raise clock.error()
        if len(found) == limit:
            break
    return found


def _failed(e: object) -> LeverplusError:
    return RegistryError(f"the query does not run: {str(e).rstrip('.')}.", TABLES)


def _refusal(text: str) -> RegistryError:
    short = " ".join(text.split())
    shown = short if len(short) <= 60 else f"{short[:60]}..."
    return RegistryError(f"the registry is only read here, one SELECT at a time: '{shown}' was not run.", TABLES)
