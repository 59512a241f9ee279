"""Where a recipe's paths lead: those of a recipe file begin in its folder, those of an option in the current one.

Bundled recipes name folders of the user's (`data/okvqa`), so theirs begin in the current folder, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from leverplus_core.bounds import PathSetting
from leverplus_core.errors import PluginError
from leverplus_core.plugins.manager import Catalog
from leverplus_core.pretrained import Pretrained
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import PARTS, ImportedSettings, PartSpec


def with_paths(recipe: Recipe, catalog: Catalog) -> Recipe:
    """`recipe` with each relative path of a recipe file made absolute; the recipe itself where there is none."""
    for key, path in _led(recipe, catalog):
        block, setting = key.split(".")
        there: PartSpec | ImportedSettings = getattr(recipe, block)
        if isinstance(there, PartSpec):
            new: Any = PartSpec.model_validate({"name": there.name, **there.settings, setting: path})
        else:
            new = there.model_copy(update={setting: path})
        recipe = recipe.model_copy(update={block: new})
    return recipe


def paths_of(recipe: Recipe, catalog: Catalog) -> dict[str, str]:
    """Dotted key -> where it leads, for each path that is set; relative ones begin in the current folder."""
    found = {f"{key}.{name}": value for key, name, value in _paths(with_paths(recipe, catalog), catalog)}
    return {key: os.path.abspath(os.path.expanduser(value)) for key, value in found.items()}


def _led(recipe: Recipe, catalog: Catalog) -> Iterator[tuple[str, str]]:
    """(dotted key, absolute path) of each relative path of a recipe file."""
    for block, setting, value in _paths(recipe, catalog):
        folder = recipe.folder_of(f"{block}.{setting}")
        if folder is not None and not os.path.isabs(os.path.expanduser(value)):
            yield f"{block}.{setting}", os.path.normpath(folder / value)


def _paths(recipe: Recipe, catalog: Catalog) -> Iterator[tuple[str, str, str]]:
    """(block, setting, value) of each path that a recipe sets."""
    if recipe.imported.folder:
        yield "imported", "folder", recipe.imported.folder
    for key in PARTS:
        spec: PartSpec = getattr(recipe, key)
        with suppress(PluginError):  # who builds it says so
            part = catalog.part_class(key, spec.name)
            for name, field in part.model_fields.items():
                value = spec.settings.get(name)
                kind = next((mark for mark in field.metadata if isinstance(mark, PathSetting)), None)
                if not isinstance(value, str):
                    continue
                if kind is None and name == "path" and issubclass(part, Pretrained):
                    # The name of a packaged checkpoint, or an id of a hub, is no path.
                    kind = PathSetting(only_there=True) if "/" in value else None
                if kind is not None and _leads(kind, value, spec.settings, recipe.folder_of(f"{key}.{name}")):
                    yield key, name, value


def _leads(kind: PathSetting, value: str, settings: Mapping[str, Any], folder: Path | None) -> bool:
    """Whether a value is a path of its own."""
    if value in kind.names or (kind.inside and settings.get(kind.inside)):
        return False
    return not kind.only_there or os.path.exists((folder or Path()) / os.path.expanduser(value))
