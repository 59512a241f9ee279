"""Verbs before a long run: what it will cost, and whether the official files are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import DEFAULT_WORK, JsonOpt, PluginOpt, RecipeArg, SetOpt, load_catalog, load_recipe

DATA = Path("data")


def register(app: typer.Typer) -> None:
    app.command()(plan)
    app.command()(fetch)


def plan(
    recipe: RecipeArg = "demo",
    overrides: SetOpt = None,
    prompts_per_s: Annotated[
        float | None, typer.Option("--prompts-per-s", min=0.001, help="Prompts of two demonstrations a second.")
    ] = None,
    images_per_s: Annotated[
        float | None, typer.Option("--images-per-s", min=0.001, help="Images encoded a second.")
    ] = None,
    plugin: PluginOpt = None,
    json: JsonOpt = False,
) -> None:
    """Say what a run will ask of the VLM, the disk and the clock, stage by stage; no weights are loaded."""
    from leverplus_core.pipeline.plan import Throughput, facts_of, plan_table
    from leverplus_core.pipeline.plan import plan as plan_of
    from leverplus_core.pipeline.run import compose
    from leverplus_core.pipeline.workspace import Workspace

    loaded = load_recipe(recipe, overrides)
    parts = compose(loaded, Workspace(DEFAULT_WORK), load_catalog(plugin))
    found = plan_of(loaded, facts_of(parts))
    assumed = Throughput()
    device = Throughput(prompts_per_s or assumed.prompts_per_s, images_per_s or assumed.images_per_s)
    rows = found.rows(device)
    summary = found.summary(loaded, device)
    if json:
        output.metadata({**summary, "stages": rows}, json)
    else:
        output.table(rows, plan_table, json)
        output.metadata({key: value for key, value in summary.items() if value}, json)


def fetch(
    release: Annotated[str, typer.Argument(metavar="okvqa|vqav2", help="The official release.")],
    folder: Annotated[Path | None, typer.Option(help="Folder of the JSON files.  [default: data/RELEASE]")] = None,
    images: Annotated[Path, typer.Option(help="Folder of the COCO photos.")] = DATA / "coco",
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the questions and annotations that are absent.")
    ] = False,
    photos: Annotated[bool, typer.Option("--photos", help="With --download: the photos, too (20 GB).")] = False,
    mirror: Annotated[
        str | None, typer.Option(metavar="URL", help="Fetch the archives from here, under their official names.")
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Say where a release's official files come from, and check what is there: sizes, counts, ids, photos."""
    from leverplus_core.errors import DataError
    from leverplus_core.releases import check, fetch_absent
    from leverplus_core.releases import release as release_of

    known = release_of(release)
    folder = folder or DATA / known.name
    with output.Bars() as bars:
        if download or photos:
            fetch_absent(known, folder, images, photos, mirror, bars)
        found = check(known, folder, images, bars)
    output.say(f"{known.title}: {known.page}")
    output.rows([{"what": f.what, "state": f.state, "detail": f.detail} for f in found], json)
    todo = [f for f in found if f.state != "ok"]
    for finding in todo:
        output.say(f"{finding.what}: {finding.do}")
    if todo:
        raise DataError(
            f"{len(todo)} of {len(found)} checks of {known.name} did not pass: {', '.join(f.what for f in todo)}.",
            "See above.",
        )
