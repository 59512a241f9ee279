"""Whether a registry is whole: for `leverplus doctor`. Nothing is written, and none is made or migrated."""

from __future__ import annotations

from leverplus_core.errors import RegistryError
from leverplus_core.registry.database import ELSEWHERE, MAKE_ONE, connect, failures, shown, sqlite_file
from leverplus_core.registry.migrations import CURRENT, version


def describe(url: str) -> str:
    """What is known of the registry at `url`, in a line: its version, its runs, and of a SQLite file its size.

    A SQLite file is checked page by page (PRAGMA quick_check). Raises RegistryError where there is none, or it is
    damaged, newer than this program or not to be reached.
    """
    engine = connect(url, must_exist=True)
    try:
        file = sqlite_file(engine)
        with failures(engine), engine.connect() as connection:
            if (found := version(connection)) == 0:
                raise RegistryError(f"no registry at {shown(engine.url)}.", MAKE_ONE)
            if engine.dialect.name == "sqlite":
                said = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA quick_check(3)")]
                if said != ["ok"]:
                    raise RegistryError(
                        f"registry {shown(engine.url)} is damaged: {said[0]}.", f"Restore it from a copy. {ELSEWHERE}"
                    )
            runs = connection.exec_driver_sql("SELECT count(*) FROM runs").scalar()
    finally:
        engine.dispose()
    size = f", {file.stat().st_size / 1e6:,.1f} MB, whole" if file is not None else ""
    older = "" if found == CURRENT else f" (brought to {CURRENT} by the next run)"
    return f"version {found}{older}, {runs:,} run{'' if runs == 1 else 's'}{size}"
