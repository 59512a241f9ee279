"""docs/algorithms.md names files, settings and parts that exist, and leaves no built-in part out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import PARTS

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
CODE = set(re.findall(r"`([^`]+)`", PAGE))
CATALOGUE = Catalog.load(disabled="")
FIELDS = Recipe.model_fields
LISTED = ("sampler", "balancer", "reward", "selector")


def rows(heading: str) -> dict[str, str]:
    """First cell -> last cell of the table of a section."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| `(\w+)` \|.*\| (.*) \|$", section, flags=re.MULTILINE)
    return dict(found)


def test_its_files_exist() -> None:
    named = [code for code in CODE if code.startswith(("leverplus_core/", "plugins/", "tests/"))]
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_its_settings_exist() -> None:
    dotted = [code for code in CODE if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", code) and code.split(".")[0] in FIELDS]
    assert len(dotted) > 50
    assert [key for key in dotted if not exists(key)] == []


def exists(key: str) -> bool:
    first, *rest = key.split(".")
    if first in PARTS:
        name = FIELDS[first].default.name
        parts = [CATALOGUE.part_class(first, n) for n in {name, *CATALOGUE.names(first)}] if first != "model" else []
        return any(rest[0] in part.model_fields for part in parts)
    if first == "training" and rest[0] in CATALOGUE.names("trainer"):
        fields = CATALOGUE.part_class("trainer", rest[0]).model_fields
        return len(rest) == 1 or rest[1] in fields
    value: object = Recipe()
    for step in (first, *rest):
        if not isinstance(value, BaseModel) or step not in type(value).model_fields:
            return False
        value = getattr(value, step)
    return True


@pytest.mark.parametrize("kind", LISTED)
def test_no_built_in_part_is_left_out(kind: str) -> None:
    built_in = {e.name for e in CATALOGUE.entries() if (e.kind, e.distribution) == (kind, "leverplus")}
    assert built_in and built_in <= CODE


@pytest.mark.parametrize(("heading", "kind"), [("Balancers", "balancer"), ("Rewards", "reward")])
def test_its_tables_list_each_parts_settings(heading: str, kind: str) -> None:
    table = rows(heading)
    for entry in CATALOGUE.entries():
        if (entry.kind, entry.distribution) == (kind, "leverplus"):
            settings = list(CATALOGUE.part_class(kind, entry.name).model_fields)
            assert re.findall(r"`(\w+)`", table[entry.name]) == settings, entry.name
