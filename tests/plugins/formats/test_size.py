"""A file larger than memory is read an entry at a time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from leverplus_core.pipeline.imported import ImportedFolder

TOOL = Path(__file__).parents[3] / "tools" / "measure_import.py"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure_import", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_peak_memory_grows_less_than_the_file(tool: ModuleType, tmp_path: Path) -> None:
    peaks = {}
    for megabytes in (1, 20):
        questions = tool.write_file(tmp_path / "x.json", megabytes)
        peaks[megabytes], _ = tool.measure(tmp_path / "x.json", tmp_path / f"in{megabytes}")
    assert questions > 2000 and ImportedFolder.load(tmp_path / "in20").has("candidates")
    assert peaks[20] - peaks[1] < 60  # the ids of 140,000 rows; the file as objects would be 150


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_gigabyte_imports_under_500_megabytes(tool: ModuleType, tmp_path: Path) -> None:
    tool.write_file(tmp_path / "x.json", 1000)
    peak, _ = tool.measure(tmp_path / "x.json", tmp_path / "in")
    assert peak < 500
