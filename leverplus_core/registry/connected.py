"""An open registry: its connections and transactions, whatever is asked in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection

from leverplus_core.errors import RegistryError
from leverplus_core.io import network_file_system
from leverplus_core.registry.database import MAKE_ONE, connect, failures, shown, sqlite_file
from leverplus_core.registry.migrations import CURRENT, migrate, version


class Connected:
    """A database that is open and has the tables of this program; `Registry` says what it is given and raises."""

    def __init__(self, url: str = "sqlite:///leverplus.db", must_exist: bool = False, read_only: bool = False) -> None:
        must_exist = must_exist or read_only
        self._engine = connect(url, must_exist, read_only)
        self._writer = self._engine.execution_options(writes=True)
        self._in_memory = self._engine.dialect.name == "sqlite" and sqlite_file(self._engine) is None
        try:
            self._bring_up_to_date(must_exist, read_only)
        except BaseException:
            self.close()
            raise

    def _bring_up_to_date(self, must_exist: bool, read_only: bool) -> None:
        with self._read() as c:
            found = version(c)
        if found == 0 and must_exist:
            raise RegistryError(f"no registry at {shown(self._engine.url)}.", MAKE_ONE)
        if found < CURRENT and read_only:
            raise RegistryError(
                f"registry {shown(self._engine.url)} has version {found}; this leverplus reads {CURRENT}.",
                "Give `leverplus runs` once with this --registry: it brings it up to date.",
            )
        if found < CURRENT:
            self._make_concurrent()
            with self._write() as c:
                migrate(c)

    @classmethod
    def open_existing(cls, url: str) -> Self:
        """The existing registry at `url`. Raises RegistryError where there is none."""
        return cls(url, must_exist=True)

    @property
    def url(self) -> str:
        """The database's URL, without a password."""
        return str(self._engine.url.render_as_string(hide_password=True))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with failures(self._engine), self._engine.connect() as c:
            yield c

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with failures(self._engine), self._writer.begin() as c:
            yield c

    def _rows(self, wanted: Any) -> list[dict[str, Any]]:
        with self._read() as c:
            return [dict(r) for r in c.execute(wanted).mappings()]

    def _make_concurrent(self) -> None:
        """SQLite: let readers read while a run writes, which persists in the file. Not on a network file system: there
        processes need memory that machines do not share, and wait for each other instead."""
        if (file := sqlite_file(self._engine)) is None:
            return
        mode = "DELETE" if network_file_system(file) else "WAL"
        with failures(self._engine):
            raw = self._engine.raw_connection()
            try:
                raw.cursor().execute(f"PRAGMA journal_mode = {mode}")
            except Exception as e:
                # Whatever is wrong with the file itself is reported by the migration that follows.
                if not isinstance(e, self._engine.dialect.loaded_dbapi.Error):
                    raise
            finally:
                raw.close()
