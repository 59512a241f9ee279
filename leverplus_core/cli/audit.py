"""`leverplus audit`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from leverplus_core.cli import options, output


def audit(
    run: options.RunArg,
    asked: Annotated[
        bool, typer.Option("--asked", help="Only list the runs that asked the evaluation questions, and when.")
    ] = False,
    sample: Annotated[int, typer.Option(min=0, help="Predictions to ask the model again; 0 loads no model.")] = 40,
    plugin: options.PluginOpt = None,
    registry: options.RegistryOpt = options.DEFAULT_REGISTRY,
    work: options.WorkOpt = options.DEFAULT_WORK,
    json: options.JsonOpt = False,
) -> None:
    """Recompute a run's cells and a sample of its predictions, and report what differs.

    Parts whose code has changed since the run are named, and every run of this registry that asked the evaluation
    questions of its dataset, and when. The exit code is 1 when a result differs.
    """
    from leverplus_core.pipeline.audit import audit as audit_run
    from leverplus_core.pipeline.audit import who_asked

    store = options.open_registry(registry)
    if asked:
        listed = who_asked(store, run)
        output.metadata(listed, json) if json else _say_who_asked(listed)
        return
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
        _say_who_asked(found)
        chose = found["chose_an_epoch"]
        if chose["questions"]:
            output.say(
                f"{chose['questions']} questions chose an epoch; {chose['evaluated']} of them are among those evaluated"
            )
        output.say(f"{len(differences)} differences" if differences else "nothing differs")
    if differences:
        raise typer.Exit(1)


def _say_who_asked(found: Mapping[str, Any]) -> None:
    """The evaluations on the run's dataset in the order of time, and one line on the run's own."""
    evaluations = found["evaluations"]
    shown: list[dict[str, Any]] = []
    before = None
    for row in evaluations:
        methods = "as above" if row["methods"] == before else ", ".join(row["methods"])
        shown.append({**row, "asked_at": row["asked_at"][:19], "methods": methods})
        before = row["methods"]
    if shown:
        output.rows(shown, json=False)
    if found["split"] is None:
        output.say(f"run {found['run']} ({found['name']}) has asked no evaluation question")
        return
    first = list(dict.fromkeys(row["run"] for row in evaluations if row["split"] == found["split"]))
    place, runs = first.index(found["run"]) + 1, found["runs"]
    output.say(
        f"{found['split']} questions of this dataset: asked by {runs} run{'' if runs == 1 else 's'} in this registry; "
        f"{found['run']} ({found['name']}) was number {place}"
    )
