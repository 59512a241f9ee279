"""Distributions as pip would leave them, made in a folder on the import path."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from leverplus_core.plugins.source import code_hash


class Install(Protocol):
    """Put a distribution with one module and one entry point on the path; returns the module's name."""

    def __call__(self, distribution: str, code: str, group: str = ..., point: str = ..., version: str = ...) -> str: ...


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path; modules that a test imports from it are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    forget(tmp_path, before)


def forget(folder: Path, before: set[str] | None = None) -> None:
    """As a new process would: no module of the folder is imported, and no hash of its code is known."""
    for name in set(sys.modules) - (before or set()):
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]
    code_hash.cache_clear()
    importlib.invalidate_caches()


@pytest.fixture
def install(site: Path) -> Install:
    def put(distribution: str, code: str, group: str = "leverplus", point: str = "parts", version: str = "1.0") -> str:
        module = distribution.replace("-", "_")
        (site / f"{module}.py").write_text(textwrap.dedent(code), encoding="utf-8")
        info = site / f"{module}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        target = module if group == "leverplus" else f"{module}:main"
        (info / "entry_points.txt").write_text(f"[{group}]\n{point} = {target}\n", encoding="utf-8")
        return module

    return put


@pytest.fixture
def restart(site: Path) -> Iterator[object]:
    yield lambda: forget(site)
