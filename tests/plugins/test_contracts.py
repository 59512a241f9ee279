"""Every part of the catalog keeps its contract: registering a part is what gets it tested."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest

from leverplus_core.plugins.contracts import Model, Part
from leverplus_core.plugins.manager import KINDS, Catalog, Entry
from leverplus_core.records import Image
from leverplus_core.testing import check, check_part, tiny_pictures

ENTRIES = [entry for entry in Catalog.load(disabled="").entries() if entry.distribution == "leverplus"]
ROOMS = Path(__file__).resolve().parents[2] / "plugins"
FOR_OTHERS = {"stage", "importer", "exporter"}
"""Kinds that need not have a built-in part."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Image]:
    return tiny_pictures(tmp_path_factory.mktemp("pictures"), count=4)


def test_the_catalog_has_all_that_the_rooms_register() -> None:
    """A room that fails to load, or is no entry point, would otherwise take its parts out of these tests unseen."""
    rooms = {path.parent.name for path in ROOMS.glob("*/leverplus_*/__init__.py")}
    every = importlib.metadata.distribution("leverplus").entry_points
    points = every.select(group="leverplus")
    trackers = every.select(group="leverplus.trackers")
    assert {point.value.partition(".")[0] for point in (*points, *trackers)} == rooms
    registered = set()
    for point in points:
        room = importlib.import_module(point.value)
        for kind in KINDS:
            parts = getattr(room, f"leverplus_{kind}s", dict)()
            registered |= {(kind, name, target) for name, target in parts.items()}
    assert {(entry.kind, entry.name, entry.target) for entry in ENTRIES} == registered


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - FOR_OTHERS))
def test_each_kind_has_a_built_in_part(kind: str) -> None:
    assert [entry for entry in ENTRIES if entry.kind == kind]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_part_keeps_its_contract(
    entry: Entry, build_part: Callable[[str, str], Part], images: list[Image], catalog: Catalog
) -> None:
    assert entry.status == "ok", entry.status
    part = build_part(entry.kind, entry.name)
    assert catalog.first_line(entry.kind, entry.name).endswith(".")
    model = build_part("model", "qwen2_5_vl") if entry.kind == "encoder" else None
    assert model is None or isinstance(model, Model)
    if entry.kind == "importer":
        check_part(part)  # tests/plugins/formats read files of each
    else:
        check(part, images=images, model=model)
