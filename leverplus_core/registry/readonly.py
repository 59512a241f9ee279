"""Queries that cannot change anything, whatever their text."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, ResourceClosedError

from leverplus_core.errors import LeverplusError, RegistryError
from leverplus_core.registry import tables

READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
TABLES = f"Views: {', '.join(tables.VIEWS)}. Tables: {', '.join(tables.metadata.tables)}."


def query(engine: Engine, text: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """(columns, rows). SQLite consults an authorizer about each action of a statement; elsewhere the transaction is
    read-only and the statement must be a SELECT."""
    with engine.connect() as c:
        if engine.dialect.name == "sqlite":
            return _sqlite(c, text)
        if not re.match(r"\s*(SELECT|WITH)\b", text, re.IGNORECASE):
            raise _refusal(text)
        c.exec_driver_sql("SET TRANSACTION READ ONLY")
        try:
            return _fetch(c, text)
        finally:
            c.rollback()


def _sqlite(c: Connection, text: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    raw = c.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    refused = False

    def authorize(action: int, *_: object) -> int:
        nonlocal refused
        if action in READING:
            return sqlite3.SQLITE_OK
        refused = True
        return sqlite3.SQLITE_DENY

    c.begin()
    raw.set_authorizer(authorize)
    try:
        return _fetch(c, text)
    except LeverplusError as e:
        raise (_refusal(text) if refused else e) from e
    finally:
        raw.set_authorizer(None)
        c.rollback()


def _fetch(c: Connection, text: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    try:
        result = c.exec_driver_sql(text)
        return list(result.keys()), [tuple(row) for row in result]
    except ResourceClosedError as e:
        raise _refusal(text) from e
    except DBAPIError as e:
        raise RegistryError(f"the query does not run: {str(e.orig).rstrip('.')}.", TABLES) from e
    except (sqlite3.Error, ValueError) as e:  # ValueError: the driver on a text with a NUL in it.
        raise RegistryError(f"the query does not run: {e}.", TABLES) from e


def _refusal(text: str) -> RegistryError:
    short = " ".join(text.split())
    shown = short if len(short) <= 60 else f"{short[:60]}..."
    return RegistryError(f"the registry is only read here, one SELECT at a time: '{shown}' was not run.", TABLES)
