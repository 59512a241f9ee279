"""The verb `leverplus bench`. Nothing here imports torch before it is called."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import JsonOpt


def bench(
    geometry: Annotated[list[str] | None, typer.Option(help="demo, mid or 3b; repeatable. Default: all.")] = None,
    arms: Annotated[
        str | None, typer.Option(help="naive, hf-batched, full, no-PIECE; comma separated. Default: the usual ones.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="demo and mid with small pools, in three minutes.")] = False,
    scaling: Annotated[bool, typer.Option("--scaling", help="Cost against questions, pools, shots, images.")] = False,
    questions: Annotated[int | None, typer.Option(min=1, help="Questions searched, instead of the usual.")] = None,
    pool: Annotated[int | None, typer.Option(min=2, help="Demonstrations in a pool, instead of the usual.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Times each arm runs, instead of the usual.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch; default: torch's own choice.")] = None,
    to: Annotated[Path | None, typer.Option("--output", help="Write the page (docs/performance.md) as well.")] = None,
    json: JsonOpt = False,
) -> None:
    """Time the InfoScore search: ours, its pieces switched off, and how others do it; say what arithmetic allows.

    A bench that was stopped goes on with the next table when the same command is given.
    """
    from leverplus_models.bench import comparison, page
    from leverplus_models.bench.scaling import curves
    from leverplus_models.smollm2 import cache_folder

    chosen = geometry or (["demo", "mid"] if quick else ["demo", "mid", "3b"])
    named = [name.strip() for name in (arms or "").split(",") if name.strip()]
    cache = cache_folder() / "bench"
    tables = comparison.plan(
        chosen, named, cache, quick=quick, rounds=rounds, questions=questions, pool=pool, threads=threads
    )
    with output.Bars() as bars:
        found = comparison.compare_all(tables, cache / "finished", bars)
        drawn = curves(cache, quick, threads, bars) if scaling else []
    rows = [row for table in found for row in table]
    output.table(page.json_rows(rows, drawn), lambda _: page.console(found, drawn), json)
    if to is not None:
        page.write(to, found, drawn)
        output.say(f"wrote {to}")
    shutil.rmtree(cache / "finished", ignore_errors=True)
    if apart := [row for row in rows if not row.agrees]:
        names = ", ".join(dict.fromkeys(f"{row.geometry}/{row.arm}/{row.order}" for row in apart))
        output.warn(f"these arms differ from naive by more than their dtype allows: {names}")
        raise typer.Exit(1)
