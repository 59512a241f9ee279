"""A PostgreSQL server for the tests of this folder, where there are the programs to start one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tools.soak.postgres import missing, new_database, server


@pytest.fixture(scope="session")
def new_postgresql() -> Iterator[Callable[[], str]]:
    """`new_postgresql()`: the URL of a new and empty database."""
    if reason := missing():
        pytest.skip(f"no PostgreSQL server: {reason}")
    numbers = itertools.count()
    with server() as at:
        yield lambda: new_database(at, f"test {next(numbers)}")
