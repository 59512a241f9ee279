"""`leverplus registry copy`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import JsonOpt, open_registry


def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Database URL of a registry.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Database URL of a new one.")],
    json: JsonOpt = False,
) -> None:
    """Copy a registry to another database, SQLite to PostgreSQL or back, and compare every row afterwards.

    Folders of stages are not copied: the copy names those of the original.
    """
    from leverplus_core.registry.registry import Registry

    with open_registry(source) as store, Registry(target) as new:
        counts = store.copy_to(new)
    if json:
        output.metadata(counts, json)
    else:
        output.rows([{"table": name, "rows": count} for name, count in counts.items()], json)
        output.say(f"copied {sum(counts.values()):,} rows; each is in the copy as it was")
