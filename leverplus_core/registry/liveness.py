"""Whether a run that the registry calls running still runs.

Its process renews `alive_at` every few seconds. A process that is killed can say nothing, so that who reads decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from leverplus_core.processes import has_ended

BEAT_S = 5.0
"""A run renews `alive_at` so often."""
STALE_S = 120
"""A run that has not done so for so long is interrupted: a machine that swaps is slower than its clock."""


def is_interrupted(run: Mapping[str, Any], now: datetime) -> bool:
    """Whether a row of `runs` says that it is running (columns status, host, pid, alive_at), and it is not: its process
    has ended, or it has not been heard of for STALE_S."""
    if run["status"] != "running":
        return False
    return str(run["alive_at"] or "") < stale_before(now) or has_ended(str(run["host"]), int(run["pid"] or 0))


def stale_before(now: datetime) -> str:
    """Runs that were heard of before this time, as the registry writes it, are interrupted."""
    return (now - timedelta(seconds=STALE_S)).astimezone(UTC).isoformat(timespec="microseconds")


class StaleBefore(FunctionElement[str]):
    """`stale_before` of the database's own clock, for views."""

    type = String()
    inherit_cache = True


@compiles(StaleBefore, "sqlite")
def _sqlite(element: StaleBefore, compiler: Any, **_: Any) -> str:
    return f"strftime('%Y-%m-%dT%H:%M:%S', 'now', '-{STALE_S} seconds')"


@compiles(StaleBefore, "postgresql")
def _postgresql(element: StaleBefore, compiler: Any, **_: Any) -> str:
    return f"to_char(now() AT TIME ZONE 'UTC' - interval '{STALE_S} seconds', 'YYYY-MM-DD\"T\"HH24:MI:SS')"
