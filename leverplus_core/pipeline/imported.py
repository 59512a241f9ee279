"""Imported folders (moves here with the room formats)."""

from __future__ import annotations

from pathlib import Path

from leverplus_core.interchange.folder import ImportedFolder
from leverplus_core.interchange.folder import ensure_imported as _ensure
from leverplus_core.plugins.manager import Catalog
from leverplus_core.progress import Progress

__all__ = ["ImportedFolder", "ensure_imported"]


def ensure_imported(
    source: Path, work: Path, catalog: Catalog, *, correct_threshold: float, progress: Progress | None = None
) -> ImportedFolder:
    """The imported folder, a file being imported first."""
    return _ensure(source, work, correct_threshold=correct_threshold, progress=progress)
