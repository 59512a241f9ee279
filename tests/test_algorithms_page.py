"""docs/algorithms.md names files, settings and parts that exist, and leaves no built-in part out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from leverplus_core.plugins.manager import Catalog
from leverplus_core.recipes.recipe import Recipe
from leverplus_core.recipes.settings import PARTS
from leverplus_core.selector.base import BaselineSelector

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
CODE = set(re.findall(r"`([^`]+)`", PAGE))
CATALOG = Catalog.load(disabled="")
FIELDS = Recipe.model_fields
LISTED = ("sampler", "balancer", "reward", "selector", "trainer")


def built_in(kind: str) -> list[str]:
    """The names of the built-in parts of a kind."""
    return [entry.name for entry in CATALOG.entries() if (entry.kind, entry.distribution) == (kind, "leverplus")]


def rows(heading: str) -> dict[str, str]:
    """First cell -> last cell of the table of a section."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| `(\w+)` \|.*\| (.*?) ?\|$", section, flags=re.MULTILINE)
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
    """Whether a dotted key is a setting of the recipe, of a part of it, or of a trainer."""
    first, *rest = key.split(".")
    if first in PARTS:
        # The model's settings are those of a backend, which the page does not name.
        names = [] if first == "model" else CATALOG.names(first)
        return any(has(CATALOG.part_class(first, name), rest) for name in names)
    if first == "training" and rest[0] in CATALOG.names("trainer"):
        return has(CATALOG.part_class("trainer", rest[0]), rest[1:])
    return has(Recipe, [first, *rest])


def has(model: type[BaseModel], path: list[str]) -> bool:
    """Whether a settings class has a field at `path`, through the classes of its defaults."""
    first, *rest = path
    if first not in model.model_fields:
        return False
    default = model.model_fields[first].get_default(call_default_factory=True)
    return not rest or (isinstance(default, BaseModel) and has(type(default), rest))


@pytest.mark.parametrize("kind", LISTED)
def test_no_built_in_part_is_left_out(kind: str) -> None:
    assert built_in(kind) and set(built_in(kind)) <= CODE


@pytest.mark.parametrize("name", built_in("trainer"))
def test_each_setting_of_a_trainer_is_named(name: str) -> None:
    base = CATALOG.part_class("trainer", "sft").__mro__[1].model_fields
    own = set(CATALOG.part_class("trainer", name).model_fields) - set(base)
    assert {setting for setting in own if not any(c.startswith(f"training.{name}.{setting}") for c in CODE)} == set()


def test_the_settings_that_trainers_share_are_named() -> None:
    shared = set.intersection(*(set(CATALOG.part_class("trainer", n).model_fields) for n in built_in("trainer")))
    assert shared and {f"training.sft.{setting}" for setting in shared} <= CODE


@pytest.mark.parametrize(("heading", "kind"), [("Balancers", "balancer"), ("Rewards", "reward")])
def test_its_tables_list_the_settings_of_each_part(heading: str, kind: str) -> None:
    table = rows(heading)
    for name in built_in(kind):
        settings = list(CATALOG.part_class(kind, name).model_fields)
        assert re.findall(r"`(\w+)`", table[name]) == settings, name


def test_its_table_of_baselines_lists_every_one_with_its_settings() -> None:
    table = rows("Evaluation")
    default = [spec.name for spec in Recipe().evaluation.baselines]
    assert [name for name in table if name in default] == default
    built = [
        name for name in built_in("selector") if issubclass(CATALOG.part_class("selector", name), BaselineSelector)
    ]
    assert sorted(table) == sorted(built)
    for name, settings in table.items():
        assert re.findall(r"`(\w+)`", settings) == list(CATALOG.part_class("selector", name).model_fields), name


def test_each_paper_is_in_the_table_of_files_and_the_table_names_no_other() -> None:
    section = PAGE.split("\n## Paper to file\n")[1].split("\n## ")[0]
    papers = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
    assert len(papers.findall(section)) > 15
    assert set(papers.findall(section)) == set(papers.findall(PAGE.replace(section, "")))
    cells = [line.split(" | ")[-1] for line in section.splitlines() if line.startswith("| ")][1:]
    assert all(re.findall(r"`((?:leverplus_core|plugins)/[^`]+)`", cell) for cell in cells)
