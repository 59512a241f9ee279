"""What the shell offers when Tab is pressed: recipes, runs, parts, settings, stages, trackers. Imports no torch.

Whatever goes wrong offers nothing: who presses it is in the middle of a line, and the command will say what is wrong.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import typer

from leverplus_core.text import one_line

Offer = tuple[str, str]
"""A word, and what it means; shells that show no meanings leave it out."""
Offers = Callable[[typer.Context, str], list[Offer]]

_WORD = re.compile(r"[\w.+/~-]+")
"""What no shell takes apart."""


def _offered(find: Callable[[typer.Context, str], Iterator[Offer]]) -> Offers:
    """Those that begin as what is typed, each once; none where they cannot be found."""

    @functools.wraps(find)
    def offers(ctx: typer.Context, incomplete: str) -> list[Offer]:
        try:
            found = {word: one_line(about) for word, about in find(ctx, incomplete)}
        except Exception:
            return []
        return [(word, about) for word, about in found.items() if word.startswith(incomplete)]

    # typer tells the arguments apart by their annotations, and would look those of `find` up elsewhere.
    offers.__annotations__ = {"ctx": typer.Context, "incomplete": str}
    del offers.__wrapped__
    return offers


@_offered
def recipes(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
    """Bundled recipes by name, and recipe files and folders beside what is typed."""
    from leverplus_core.recipes.loader import bundled

    folder = os.path.dirname(incomplete)
    for entry in sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda entry: entry.name):
        path = os.path.join(folder, entry.name)
        if not _WORD.fullmatch(path):
            continue
        if entry.is_dir() and folder:
            yield f"{path}/", "a folder"
        elif entry.name.endswith((".yaml", ".yml")):
            yield path, "a recipe file"
    yield from ((name, "a bundled recipe") for name in bundled())


@_offered
def runs(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
    """`latest`, and the runs of the registry that the line or the environment names: by name and id."""
    from leverplus_core.cli.options import DEFAULT_REGISTRY
    from leverplus_core.registry.registry import Registry

    url = ctx.params.get("registry") or os.environ.get("LEVERPLUS_REGISTRY") or DEFAULT_REGISTRY
    with Registry(url, read_only=True) as store:  # an older one is not brought up to date by pressing Tab
        rows = store.runs()
    if rows:  # the last started is the first
        yield "latest", rows[0]["name"]
    for row in rows:
        if _WORD.fullmatch(row["name"]):
            yield row["name"], f"run {row['id']}, {row['status']}"
    yield from ((row["id"], f"{row['name']}, {row['status']}") for row in rows)


def parts(kind: str) -> Offers:
    """The parts of a kind, by name."""

    def find(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
        catalog = _catalog(ctx)
        return ((name, f"of {catalog.entry(kind, name).distribution}") for name in catalog.names(kind))

    return _offered(find)


@_offered
def any_part(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
    """The parts of all kinds, by name."""
    yield from (
        (entry.name, f"a {entry.kind} of {entry.distribution}") for entry in _catalog(ctx).entries() if entry.kind
    )


@_offered
def settings(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
    """`A.B=` for every setting of the line's recipe, those of its parts included."""
    from leverplus_core.recipes.recipe import Recipe

    recipe, catalog = Recipe.load(ctx.params.get("recipe") or "demo"), _catalog(ctx)
    for key, default in _leaves(recipe.values()):
        yield f"{key}=", f"{default!r} in this recipe"
    for kind, key, name in _named(recipe):
        for setting, field in catalog.part_class(kind, name).model_fields.items():
            yield f"{key}.{setting}=", f"of {kind} '{name}': {field.description or field.annotation}"


@_offered
def stages(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
    """The stages of a run, in order."""
    from leverplus_core.pipeline.stages import STAGE_NAMES
    from leverplus_core.recipes.recipe import Recipe

    recipe = Recipe.load(ctx.params.get("recipe") or "demo")
    of_plugins = [*recipe.training.trainers, *(spec.name for spec in recipe.stages)]
    yield from ((name, "a stage") for name in (*STAGE_NAMES, *of_plugins))


@_offered
def trackers(ctx: typer.Context, incomplete: str) -> Iterator[Offer]:
    """The trackers that are registered; the package of one need not be installed."""
    from leverplus_core.plugins.trackers import tracker_entries

    yield from ((entry.name, f"of {entry.distribution}") for entry in tracker_entries()[0] if entry.status == "ok")


def _catalog(ctx: typer.Context) -> Any:
    from leverplus_core.plugins.manager import Catalog

    return Catalog.load(ctx.params.get("plugin") or ())


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _named(recipe: Any) -> Iterator[tuple[str, str, str]]:
    """(kind, key, name) of the parts that a recipe has under a key of its own."""
    from leverplus_core.recipes.settings import PARTS

    yield from ((kind, kind, getattr(recipe, kind).name) for kind in PARTS)
    yield from (("trainer", f"training.{name}", name) for name in recipe.training.trainers)
