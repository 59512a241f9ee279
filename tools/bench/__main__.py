"""Time the InfoScore search: the engine, each of its optimizations switched off, and stock transformers.

    python -m tools.bench [--geometry demo] [--arms full,no-kernels] [--quick] [--scaling] [--output PAGE]

Prints the tables as Markdown, with the gain that arithmetic allows. When it is stopped, the same command continues with
the next table. Ends with exit code 1 when an arm's log-probabilities differ from those of `naive`.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from leverplus_core import Bars, LeverplusError, cache_folder
from tools.bench import comparison, page
from tools.bench.scaling import curves


def main(
    geometry: Annotated[list[str] | None, typer.Option(help="demo, mid or 3b; repeatable. Default: all.")] = None,
    arms: Annotated[
        str | None, typer.Option(help="naive, hf-batched, hf-image-cache, full, no-SWITCH; comma separated.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="demo and mid with small pools, in three minutes.")] = False,
    scaling: Annotated[bool, typer.Option("--scaling", help="Cost against questions, pools, shots, images.")] = False,
    questions: Annotated[int | None, typer.Option(min=1, help="Questions searched, instead of the usual.")] = None,
    pool: Annotated[int | None, typer.Option(min=2, help="Demonstrations per pool, instead of the usual.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Times each arm runs, instead of the usual.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch; default: torch's own choice.")] = None,
    cpu_time: Annotated[bool, typer.Option("--cpu-time", help="CPU seconds, for a machine that others use.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    output: Annotated[Path | None, typer.Option(help="Write the page (docs/performance.md) as well.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Time the InfoScore search of the engine, of its parts switched off, and of stock transformers."""
    chosen = geometry or (["demo", "mid"] if quick else ["demo", "mid", "3b"])
    named = [name.strip() for name in (arms or "").split(",") if name.strip()]
    cache = cache_folder() / "bench"
    sizes = {"questions": questions, "pool": pool, "threads": threads, "cpu_time": cpu_time}
    tables = comparison.plan(chosen, named, cache, quick, rounds, device=comparison.known_device(device), **sizes)
    with Bars() as bars:
        found = comparison.compare_all(tables, cache / "finished", bars)
        drawn = curves(cache, quick, threads, bars) if scaling else []
    rows = [row for table in found for row in table]
    if as_json:
        print(json.dumps({"rows": [row.figures() for row in rows], "curves": [asdict(curve) for curve in drawn]}))
    else:
        print(page.tables(found, drawn))
    if output is not None:
        page.write(output, found, drawn)
    shutil.rmtree(cache / "finished", ignore_errors=True)
    if different := [row for row in rows if not row.agrees]:
        names = ", ".join(dict.fromkeys(f"{row.case.geometry}/{row.arm}/{row.order}" for row in different))
        print(f"bench: these arms differ from naive by more than their dtype allows: {names}", file=sys.stderr)
        raise typer.Exit(1)


if __name__ == "__main__":
    try:
        typer.run(main)
    except LeverplusError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
