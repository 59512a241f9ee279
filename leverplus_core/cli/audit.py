"""`leverplus audit`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import options, output


def audit(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id, prefix, name or 'latest'.")],
    sample: Annotated[int, typer.Option(min=0, help="Predictions to ask the model again; 0 loads no model.")] = 40,
    plugin: options.PluginOpt = None,
    registry: options.RegistryOpt = options.DEFAULT_REGISTRY,
    work: options.WorkOpt = options.DEFAULT_WORK,
    json: options.JsonOpt = False,
) -> None:
    """Recompute a run's cells and a sample of its predictions, and report what differs.

    Parts whose code has changed since the run are named. The exit code is 1 when a result differs.
    """
    from leverplus_core.pipeline.audit import audit as audit_run

    store = options.open_registry(registry)
    with output.Bars() as bars:
        found = audit_run(store, run, sample, work, options.load_catalog(plugin), bars)
    differences = found["differences"]
    if json:
        output.metadata(found, json)
    else:
        output.say(
            f"run {found['run']} ({found['name']}): {found['cells']} cells of {found['predictions']:,} predictions "
            f"recomputed, {found['asked_again']} predictions asked again"
        )
        if differences:
            output.rows([{k: str(v) for k, v in row.items()} for row in differences[:50]], json)
        for part in found["changed_code"]:
            output.say(f"the code of {part['kind']} '{part['name']}' has changed since the run: {part['now']}")
        output.say(f"{len(differences)} differences" if differences else "nothing differs")
    if differences:
        raise typer.Exit(1)
