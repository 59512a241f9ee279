"""Rooms, and the third-party example, import public names of core only: what they need, any plugin can have."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import leverplus_core

ROOT = Path(__file__).parents[2]
ROOMS = [*sorted((ROOT / "plugins").glob("*/leverplus_*")), ROOT / "tests" / "acme" / "leverplus_acme"]


def _private_imports(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        match node:
            case ast.Import():
                found += [alias.name for alias in node.names if alias.name.startswith("leverplus_core.")]
            case ast.ImportFrom(module="leverplus_core"):
                found += [alias.name for alias in node.names if alias.name not in leverplus_core.__all__]
            case ast.ImportFrom(module=str(module)) if module.startswith("leverplus_core."):
                found += [module] if module != "leverplus_core.testing" else []
    return [f"{file.name}: {name}" for name in found]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_imports_public_names_of_core_only(room: Path) -> None:
    assert [line for file in sorted(room.rglob("*.py")) for line in _private_imports(file)] == []
