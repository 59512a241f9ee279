"""A PostgreSQL server of one's own, on loopback, for as long as a block lasts."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, create_engine


def missing() -> str:
    """Why no server can be started here; '' where it can."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed"
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        return "there are no programs initdb and pg_ctl"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL does not run as root, and there is no setpriv"
    return ""


@contextmanager
def server() -> Iterator[URL]:
    """The URL of a new server's first database. It asks for a password, since others may be on this machine."""
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder, as_user = Path(name), list[str]()
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
            as_user = ["setpriv", "--reuid=nobody", "--clear-groups"]

        def call(*words: str) -> None:
            done = subprocess.run(
                [*as_user, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
            if done.returncode:
                raise RuntimeError(f"{' '.join(words)}: {done.stderr}")

        password = folder / "password"
        password.write_text(secrets.token_hex(16))
        if as_user:
            shutil.chown(password, "nobody")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        data = str(folder / "data")
        call("initdb", "-D", data, "-U", "leverplus", "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync")
        options = f"-k '' -c listen_addresses=127.0.0.1 -p {port} -c fsync=off"
        call("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield URL.create(
                "postgresql+psycopg", "leverplus", password.read_text(), "127.0.0.1", port, database="postgres"
            )
        finally:
            call("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")


def new_database(server: URL, name: str) -> str:
    """The URL, with its password, of a new and empty database."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as c:
        c.exec_driver_sql(f'CREATE DATABASE "{name}"')
    engine.dispose()
    return server.set(database=name).render_as_string(hide_password=False)
