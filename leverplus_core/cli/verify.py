"""The verb that checks what a registry says against the data and the model."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import output
from leverplus_core.cli.options import (
    DEFAULT_REGISTRY,
    DEFAULT_WORK,
    JsonOpt,
    PluginOpt,
    RegistryOpt,
    WorkOpt,
    load_catalog,
    open_registry,
)


def register(app: typer.Typer) -> None:
    app.command()(verify)


def verify(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id, prefix, name or 'latest'.")],
    sample: Annotated[int, typer.Option(min=0, help="Predictions to ask the VLM again; 0 loads no model.")] = 40,
    plugin: PluginOpt = None,
    registry: RegistryOpt = DEFAULT_REGISTRY,
    work: WorkOpt = DEFAULT_WORK,
    json: JsonOpt = False,
) -> None:
    """Recompute every cell from the stored predictions, ask the VLM a sample again, and say what differs.

    Exit code 1 where anything does.
    """
    from leverplus_core.pipeline.verify import verify as verify_run

    store = open_registry(registry)
    with output.Bars() as bars:
        found = verify_run(store, run, sample, work, load_catalog(plugin), bars)
    differences = found["differences"]
    if json:
        output.metadata(found, json)
    else:
        output.say(
            f"run {found['run']} ({found['name']}): {found['cells']} cells of {found['predictions']:,} predictions "
            f"recomputed, {found['asked_again']} asked again"
        )
        if differences:
            output.rows([{k: str(v) for k, v in row.items()} for row in differences[:50]], json)
        output.say(f"{len(differences)} differences" if differences else "nothing differs")
    if differences:
        raise typer.Exit(1)
