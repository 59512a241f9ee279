"""`leverplus cache prune`."""

from __future__ import annotations

from typing import Annotated

import typer

from leverplus_core.cli import completion, options, output
from leverplus_core.errors import RecipeError


def prune(
    days: Annotated[
        float | None,
        typer.Option("--older-than", min=0, metavar="DAYS", help="Only what was not written for so many days."),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(autocompletion=completion.runs, help="The folders of stages that only this run has; repeatable."),
    ] = None,
    yes: options.YesOpt = False,
    registry: options.RegistryOpt = options.DEFAULT_REGISTRY,
    work: options.WorkOpt = options.DEFAULT_WORK,
    json: options.JsonOpt = False,
) -> None:
    """Remove artifacts by age, or those of a run, whose results stay in the registry. Asks first.

    The age of a stage's folder is that of what was written last; each response of the model has its own.
    What is removed is computed again when a run needs it; results are in the registry and stay. A stage that is being
    computed is refused.
    """
    from leverplus_core.pipeline.storage import by_kind, folders_of, older_than, stored

    if days is None and not run:
        raise RecipeError("nothing says what to remove.", "Give --older-than DAYS, --run RUN, or both.")
    if run:
        with options.open_registry(registry) as store:
            found = folders_of(store, [store.resolve(text)["id"] for text in run])
    else:
        found = stored(work)
    found = found if days is None else older_than(found, days)
    size = output.size(sum(thing.bytes for thing in found))
    for kind, things in by_kind(found).items():
        of_kind = sum(thing.number for thing in things)
        output.say(f"{kind}: {of_kind:,}, {output.size(sum(thing.bytes for thing in things))}")
    number = sum(thing.number for thing in found)
    if found:
        options.confirm(f"Remove {output.many(number, 'thing')} ({size})?", yes)
    for thing in found:
        thing.remove()
    if json:
        output.metadata({"removed": number, "bytes": sum(thing.bytes for thing in found)}, json)
    else:
        output.say(f"removed {size}")
