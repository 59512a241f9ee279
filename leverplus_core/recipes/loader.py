"""Recipes as text: YAML with line numbers, `extends:`, parts by name and dotted overrides."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Self

from leverplus_core.errors import RecipeError, did_you_mean
from leverplus_core.parsing import DEPTH, LARGEST_YAML, Unreadable, parse_yaml
from leverplus_core.recipes.settings import PARTS, parse_part, parse_scalar


class Place(str):
    """File and line of a setting, and the folder in which its paths begin: None for the current one."""

    folder: Path | None

    def __new__(cls, text: str, folder: Path | None) -> Self:
        made = super().__new__(cls, text)
        made.folder = folder
        return made


def bundled() -> dict[str, Path]:
    """The recipes that ship with leverplus, by name."""
    folder = Path(str(resources.files("leverplus_core") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda path: path.stem)}


def recipe_file(source: str | Path, seen: tuple[Path, ...] = ()) -> Path:
    """The file of a recipe, or of a bundled one by name; `seen` are the recipes that extend it.

    Raises RecipeError where it is neither.
    """
    path = Path(source)
    if seen and os.path.isfile(beside := seen[-1].parent / path):
        path = beside  # `extends:` means the file beside it, wherever the command is given
    elif not os.path.isfile(path):
        known = bundled()
        if str(source) in known:
            path = known[str(source)]
        else:
            raise RecipeError(
                f"no recipe '{source}'{f' (extended by {seen[-1].name})' if seen else ''}.",
                f"It is neither a file nor bundled. {did_you_mean(str(source), known)}",
            )
    return path.resolve()


def recipe_text(source: str | Path) -> str:
    """The text of a recipe's file. Raises RecipeError as `Recipe.load`, for one that cannot be read or is no recipe."""
    read_layers(source, ())
    return recipe_file(source).read_text(encoding="utf-8-sig")


def as_yaml(values: Mapping[str, Any]) -> str:
    """Plain values as YAML that reads back as the same."""
    from ruamel.yaml import YAML

    yaml, out = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    yaml.dump(dict(values), out)
    return out.getvalue()


def read_layers(source: str | Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """Plain values of a recipe over what it extends, and the file and line of each dotted key.

    `seen` are the recipes that extend this one. Raises RecipeError as `Recipe.load`.
    """
    path = recipe_file(source, seen)
    if path in seen:
        raise RecipeError(
            f"{path.name} extends itself: {' -> '.join(p.name for p in (*seen, path))}.", "Remove one `extends:`."
        )
    try:
        values, numbers = parse_yaml(_start_of(path))
    except OSError as e:
        raise RecipeError(f"{path.name} cannot be read: {e.strerror or e}.", "Give a YAML file.") from e
    except Unreadable as e:
        line = f":{e.line}" if e.line else ""
        hint = "Fix it there; put a text that begins with { or [ in quotes."
        raise RecipeError(f"{path.name}{line} is not YAML: {e}.", hint) from e
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise RecipeError(f"{path.name} is not a mapping of settings.", "Start with `name: ...`.")
    folder = None if path in {file.resolve() for file in bundled().values()} else path.parent
    lines: dict[str, str] = {key: Place(f"{path.name}:{number}", folder) for key, number in numbers.items()}
    named = "name" in values
    base = values.pop("extends", None)
    if base is not None and not isinstance(base, str):
        raise RecipeError(f"'extends' in {lines['extends']} is not a recipe: {base!r}.", "Name one recipe.")
    if base is not None:
        below, below_lines = read_layers(base, (*seen, path))
        values, lines = _merge(below, values), below_lines | lines
    values.setdefault("name", path.stem)
    if base is not None and not named:
        values["name"] = path.stem
    return values, lines


KEYWORDS = "the keyword arguments"
"""The place of a key that stands in no file."""


def extended(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Plain values over the recipe that `extends` names among them, and the place of each dotted key.

    Raises RecipeError as `Recipe.load`.
    """
    above = dict(values)
    base = above.pop("extends")
    if not isinstance(base, str):
        raise RecipeError(f"'extends' in {KEYWORDS} is not a recipe: {base!r}.", "Name one recipe.")
    below, lines = read_layers(base, ())
    del below["name"]
    for key in _keys(above):
        forget_lines(lines, key)
        lines[key] = KEYWORDS
    return _merge(below, above), lines


def _keys(values: Mapping[str, Any], above: str = "") -> list[str]:
    """The dotted keys of all values that are no mappings."""
    found = []
    for name, value in values.items():
        key = f"{above}{name}"
        found += _keys(value, f"{key}.") if isinstance(value, Mapping) and value else [key]
    return found


def plain(value: Any, key: str = "") -> Any:
    """A value of Python as a recipe's file would hold it: a path as text, a tuple or an array as a list, settings as a
    mapping. Raises RecipeError for what none holds."""
    if isinstance(value, Mapping):
        return {name: plain(below, f"{key}.{name}".lstrip(".")) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [plain(below, f"{key}.{i}") for i, below in enumerate(value)]
    if value is None or (isinstance(value, bool | int | float | str) and not hasattr(value, "tolist")):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    for method, arguments in (("tolist", {}), ("model_dump", {"mode": "json"})):  # of numpy, of pydantic
        if (found := getattr(value, method, None)) is not None and not isinstance(value, type):
            return plain(found(**arguments), key)
    raise RecipeError(
        f"'{key}' is a {type(value).__name__}: {value!r}.", "A recipe holds numbers, texts, lists and mappings."
    )


def _start_of(path: Path) -> bytes:
    """As much of a file as shows that it is too long; a device or a pipe may have no end."""
    with path.open("rb") as f:
        return f.read(LARGEST_YAML + 1)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """`above` over `below`; a part of another name replaces the part whole, settings of one name are merged."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if depth == 0 and key in PARTS:
            old, value = _as_part(old), _as_part(value)
            if (
                isinstance(old, dict)
                and isinstance(value, dict)
                and value.get("name", old.get("name")) != old.get("name")
            ):
                old = None
        merged[key] = _merge(old, value, depth + 1) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _as_part(value: Any) -> Any:
    return parse_part(value) if isinstance(value, str) else value


def apply_override(values: dict[str, Any], lines: dict[str, str], text: str) -> None:
    """Apply `a.b=c` of --set to `values` and `lines` in place. Raises RecipeError for text that is not key=value."""
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RecipeError(f"--set '{text}' is not key=value.", "Write --set sampler.k=32.")
    if key.count(".") > DEPTH:
        raise RecipeError(f"--set '{key}' is nested more than {DEPTH} deep.", "Write --set sampler.k=32.")
    above: Any = parse_scalar(raw, f"--set {text}")
    for name in reversed(key.split(".")):
        above = {name: above}
    before, merged = dict(values), _merge(values, above)
    values.clear()
    values.update(merged)
    forget_lines(lines, key)
    lines[key] = f"--set {key}"
    for above in _prefixes(key):
        if not isinstance(_at_key(before, above), dict):
            lines[above] = f"--set {key}"  # what was there is replaced, too


def _prefixes(key: str) -> list[str]:
    names = key.split(".")
    return [".".join(names[:i]) for i in range(1, len(names))]


def _at_key(values: Mapping[str, Any], key: str) -> Any:
    here: Any = values
    for name in key.split("."):
        here = here.get(name, {}) if isinstance(here, Mapping) else {}
    return here


def forget_lines(lines: dict[str, str], key: str) -> None:
    """Drop the lines of the keys below `key`, which has been replaced: they would blame the wrong place."""
    for below in [name for name in lines if name.startswith(f"{key}.")]:
        del lines[below]
